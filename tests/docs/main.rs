//! Checks the documentation against the tree: links, folders, metrics, alerts, config keys and YAML blocks. The checks
//! need no service.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boon::{Compiler, Schemas};
use regex::Regex;
use signalbox::config;
use signalbox::message::Code;
use signalbox::telemetry::Metrics;

/// Completes a YAML block without endpoints, which is an excerpt of a file.
const ENDPOINTS: &str = "model_endpoints:\n  - {name: any, routes: [{model_uri: 'builtin:noop', alias: any}]}\n";

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = without_code(&read(&page));
        for target in targets(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            if !leads_somewhere(&page, &target) {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(links > 150, "only {links} links were found");
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn references_are_defined_and_used() {
    let reference = Regex::new(r"\]\[([a-z_]+)\]").unwrap();
    let definition = Regex::new(r"(?m)^\[([a-z_]+)\]: ").unwrap();
    for page in pages() {
        let text = without_code(&read(&page));
        let names = |pattern: &Regex| -> BTreeSet<String> {
            pattern.captures_iter(&text).map(|found| found[1].to_owned()).collect()
        };
        assert_eq!(names(&reference), names(&definition), "{}", page.display());
    }
}

#[test]
fn folders_of_the_source_are_on_the_map() {
    let map = read(Path::new("docs/architecture.md"));
    let mut missing = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let shown = if entry.path().is_dir() { format!("`src/{name}/`") } else { format!("`src/{name}`") };
        if !map.contains(&shown) {
            missing.push(shown);
        }
    }
    assert!(missing.is_empty(), "docs/architecture.md lacks {missing:?}");
    let shown = Regex::new("`(src/[a-z_/.]+)`").unwrap();
    for path in shown.captures_iter(&map).map(|found| found[1].to_owned()) {
        assert!(root().join(&path).exists(), "docs/architecture.md shows {path}, which is not there");
    }
}

#[test]
fn metrics_of_the_code_are_in_the_manual() {
    let (registered, manual) = (metrics(), read(Path::new("docs/operations.md")));
    assert!(registered.len() > 50, "only {} metrics were found: {registered:?}", registered.len());
    let missing: Vec<_> = registered.iter().filter(|name| !has_row(&manual, name)).collect();
    assert!(missing.is_empty(), "docs/operations.md has no row for {missing:?}");
}

#[test]
fn metrics_of_the_manual_are_in_the_code() {
    let registered = metrics();
    let named = Regex::new("signalbox_[a-z0-9_]*[a-z0-9]").unwrap();
    for page in pages().into_iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        for name in named.find_iter(&read(&page)).map(|found| found.as_str().to_owned()) {
            assert!(registered.contains(&name), "{} names {name}, which is not registered", page.display());
        }
    }
}

#[test]
fn faults_of_the_code_are_in_the_manual() {
    let manual = read(Path::new("docs/wire.md"));
    for code in Code::ALL {
        let row = format!("| {} | `{}` |", code.status(), code.name());
        assert!(manual.contains(&row), "docs/wire.md has no row that begins with {row}");
    }
}

#[test]
fn alerts_are_in_the_manual() {
    let manual = read(Path::new("docs/operations.md"));
    let alert = Regex::new(r"(?m)^ *- alert: (\w+)$").unwrap();
    let rules = read(Path::new("config/prometheus/rules.yml"));
    let alerts: Vec<&str> = alert.captures_iter(&rules).map(|found| found.extract::<1>().1[0]).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(manual.contains(&format!("`{alert}`")), "docs/operations.md lacks {alert}");
    }
}

#[test]
fn config_keys_of_the_manual_are_in_the_reference() {
    let reference = read(Path::new("config/reference.yaml"));
    let key = Regex::new(r"`(?:kafka|server|registry|models)((?:\.[a-z_]+)+)`").unwrap();
    for page in pages().into_iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        for found in key.captures_iter(&read(&page)) {
            for part in found[1].split('.').filter(|part| !part.is_empty()) {
                let line = Regex::new(&format!(r"(?m)^ *(?:- |# +)?{part}:")).unwrap();
                assert!(line.is_match(&reference), "{} names {}, which is no key", page.display(), &found[0]);
            }
        }
    }
}

#[test]
fn reference_passes_the_check() {
    let report = check(&read(Path::new("config/reference.yaml")), "reference.yaml");
    assert_eq!(report, None);
}

#[test]
fn yaml_blocks_pass_the_check() {
    let mut wrong = Vec::new();
    let mut blocks = 0;
    for page in pages() {
        for (line, block) in yaml_blocks(&read(&page)) {
            blocks += 1;
            let whole = block.contains("model_endpoints:");
            let text = if whole { block } else { format!("{ENDPOINTS}{block}") };
            if let Some(report) = check(&text, "block.yaml") {
                wrong.push(format!("{}, the block after line {line}:\n{report}\n{text}", page.display()));
            }
        }
    }
    assert!(blocks > 15, "only {blocks} blocks were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn schema_takes_every_config_of_the_repository() {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", config::schema()).unwrap();
    let schema = compiler.compile("schema.json", &mut schemas).unwrap();
    let mut refused = Vec::new();
    let mut configs = yaml_files();
    configs.extend(pages().iter().flat_map(|page| {
        let name = |line| format!("{}, the block after line {line}", page.display());
        yaml_blocks(&read(page)).into_iter().map(move |(line, block)| (name(line), block)).collect::<Vec<_>>()
    }));
    assert!(configs.len() > 20, "only {} configs were found", configs.len());
    for (name, text) in configs {
        let whole = if text.contains("model_endpoints:") { text } else { format!("{ENDPOINTS}{text}") };
        let mut value: serde_yaml::Value = serde_yaml::from_str(&whole).unwrap();
        value.apply_merge().unwrap();
        if let Err(error) = schemas.validate(&serde_json::to_value(value).unwrap(), schema) {
            refused.push(format!("{name}: {error:#}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Reads the config files of the tree: the YAML files that have endpoints.
fn yaml_files() -> Vec<(String, String)> {
    let tracked = Command::new("git").args(["ls-files", "*.yaml", "*.yml"]).current_dir(root()).output().unwrap();
    let tracked = String::from_utf8(tracked.stdout).unwrap();
    let files = tracked.lines().map(|name| (name.to_owned(), read(Path::new(name))));
    files.filter(|(_, text)| text.contains("model_endpoints:\n")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lists the pages of the documentation, relative to the root.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).to_vec();
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    pages.extend(
        docs.map(|name| Path::new("docs").join(name)).filter(|path| path.extension().is_some_and(|it| it == "md")),
    );
    pages.sort();
    pages
}

/// Drops the fenced blocks of a text: nothing in them is a link or a heading.
fn without_code(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        if !fenced && !is_fence {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Collects the targets of a page's links: inline ones, and the definitions of named ones.
fn targets(text: &str) -> Vec<String> {
    let inline = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let defined = Regex::new(r"(?m)^\[[^\]]+\]: (\S+)$").unwrap();
    let found = inline.captures_iter(text).chain(defined.captures_iter(text));
    found.map(|found| found[1].to_owned()).collect()
}

/// Tells whether a relative link has its file, and the file its heading.
fn leads_somewhere(page: &Path, target: &str) -> bool {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => root().join(page),
        path => root().join(page).parent().unwrap().join(path),
    };
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    file.exists() && (anchor.is_empty() || (is_page && anchors(&fs::read_to_string(&file).unwrap()).contains(anchor)))
}

/// Makes the anchors of a page's headings as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let without_code = without_code(text);
    let headings = without_code.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    headings
        .map(|heading| {
            let kept = heading.trim().to_lowercase();
            let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            let anchor: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
        })
        .collect()
}

/// Finds the names of all metrics in the source: a name is the text before a help text, which has several words. The
/// registry cannot tell them, since a metric with labels appears there with its first event.
fn metrics() -> BTreeSet<String> {
    Metrics::TABLE.iter().map(|row| format!("signalbox_{}", row.name)).collect()
}

/// Tells whether a table of the manual has a row for the metric.
fn has_row(manual: &str, name: &str) -> bool {
    ["`", "{"].iter().any(|end| manual.contains(&format!("\n| `{name}{end}")))
}

/// Cuts the YAML blocks out of a page, each with the line that it comes after.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut current: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut current {
            None if line == "```yaml" => current = Some((index + 1, String::new())),
            None => {}
            Some(_) if line == "```" => blocks.extend(current.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(current.is_none(), "a block without an end");
    blocks
}

/// Runs `signalbox check` on a text, and gives its report when the file is refused or has warnings.
fn check(text: &str, name: &str) -> Option<String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("docs-{}", std::process::id()));
    let directory = directory.join(format!("{:?}", std::thread::current().id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    command.args(["check", "--config", name]).current_dir(&directory);
    // The log is off, so that what stands on standard error is the report.
    command.env("KAFKA_PASSWORD", "secret").env("RUST_LOG", "off");
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    fs::remove_dir_all(&directory).unwrap();
    (!output.status.success() || !report.is_empty()).then_some(report)
}

#[test]
fn dependencies_are_used() {
    let manifest = read(Path::new("Cargo.toml"));
    let section = |name: &str| -> Vec<String> {
        let (_, rest) = manifest.split_once(&format!("\n[{name}]\n")).unwrap();
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        let named = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_"));
        named.collect()
    };
    let unused = |names: Vec<String>, folders: &[&str]| -> Vec<String> {
        let code: String = folders.iter().map(|folder| all_code(&root().join(folder))).collect();
        names.into_iter().filter(|name| !Regex::new(&format!(r"\b{name}\b")).unwrap().is_match(&code)).collect()
    };
    assert_eq!(unused(section("dependencies"), &["src"]), Vec::<String>::new());
    assert_eq!(unused(section("dev-dependencies"), &["src", "tests", "benches"]), Vec::<String>::new());
}

/// Joins the Rust files of a folder.
fn all_code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let code = entries.map(|path| match path.extension() {
        _ if path.is_dir() => all_code(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(&path).unwrap(),
        _ => String::new(),
    });
    code.collect()
}
