//! The JSON Schema of a configuration file, made from the structs: editors complete keys and explain them by it.
//!
//! The schema is a little more lenient than `signalbox check`: where a value may come from the environment it takes any
//! text with a reference, and rules that no type expresses are the check's.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Config;

#[cfg(test)]
mod tests;

/// Pattern of a text that refers to the environment; `$${` stands for the characters themselves.
const REFERENCE: &str = r"(^|[^$])\$\{";

/// Key whose default is another in each environment, so that the schema has none.
const OF_ENVIRONMENT: &str = "/properties/models/properties/python";

/// Makes the schema, in the draft that editors know best.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    widen(&mut schema);
    if let Some(Value::Object(key)) = schema.pointer_mut(OF_ENVIRONMENT) {
        key.remove("default");
    }
    if let Value::Object(root) = &mut schema {
        root.insert("title".to_owned(), json!("Signalbox configuration"));
    }
    schema
}

/// Adds to a schema, and to all below it, what a file may have in place of a value: nothing, and a reference to the
/// environment.
fn widen(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    tidy(schema);
    let required: Vec<String> = match schema.get("required") {
        Some(Value::Array(keys)) => keys.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (key, value) in properties.iter_mut() {
            widen(value);
            *value = alternatives(value.take(), !required.contains(key));
        }
    }
    for (key, may_be_nothing) in [("additionalProperties", true), ("items", false)] {
        if let Some(value) = schema.get_mut(key).filter(|value| value.is_object()) {
            widen(value);
            *value = alternatives(value.take(), may_be_nothing);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.iter_mut().for_each(widen);
    }
}

/// Takes out what says nothing in an editor: line breaks of comments, Rust's names of numbers, and defaults that are
/// nothing or whole sections, whose own keys have their defaults.
fn tidy(schema: &mut Map<String, Value>) {
    schema.remove("format");
    if schema.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        schema.remove("default");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        choices.iter_mut().filter_map(Value::as_object_mut).for_each(tidy);
    }
}

/// Makes a schema that also takes a reference to the environment, where the value is a scalar that is not any text, and
/// nothing, where the key may be left out.
fn alternatives(value: Value, may_be_nothing: bool) -> Value {
    let Value::Object(mut schema) = value else { return value };
    let mut choices = match schema.remove("anyOf") {
        Some(Value::Array(choices)) => choices,
        _ => {
            let is_about = |key: &str| matches!(key, "description" | "default");
            let (about, kind): (Map<_, _>, Map<_, _>) = schema.into_iter().partition(|(key, _)| is_about(key));
            schema = about;
            vec![Value::Object(kind)]
        }
    };
    choices.retain(|choice| *choice != json!({"type": "null"}));
    choices.iter_mut().for_each(without_null);
    let is_anything = |choice: &Value| choice.as_object().is_some_and(Map::is_empty);
    let is_any_text = |choice: &Value| {
        let kind = &choice["type"];
        choice.get("pattern").is_none()
            && (kind == "string" || kind.as_array().is_some_and(|it| it.contains(&json!("string"))))
    };
    let is_scalar = |choice: &Value| choice["type"] != "object" && choice["type"] != "array";
    if choices.iter().any(is_scalar) && !choices.iter().any(|it| is_any_text(it) || is_anything(it)) {
        choices.push(json!({"type": "string", "pattern": REFERENCE}));
    }
    if may_be_nothing && !choices.iter().any(is_anything) {
        choices.push(json!({"type": "null"}));
    }
    match &mut choices[..] {
        // Editors show the keys and comments of a single choice at once, so that one is no list.
        [Value::Object(only)] => schema.append(only),
        [Value::Object(one), null] if *null == json!({"type": "null"}) && one["type"].is_string() => {
            let kind = one["type"].take();
            one.insert("type".to_owned(), json!([kind, "null"]));
            schema.append(one);
        }
        _ => {
            schema.insert("anyOf".to_owned(), Value::Array(choices));
        }
    }
    Value::Object(schema)
}

/// Takes out the word by which the schema of an `Option` allows for nothing.
fn without_null(choice: &mut Value) {
    if let Some(Value::Array(kinds)) = choice.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = &mut kinds[..] {
            choice["type"] = only.take();
        }
    }
}
