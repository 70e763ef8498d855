//! The names that an expression may use, whichever way it is evaluated; an unknown one is refused with the nearest that
//! is known.
//!
//! Whoever writes the configuration is trusted as whoever names a model is, so this is no wall against them: it tells
//! people early of what could never work, and of what would make a decision more than a function of the request.

use std::collections::HashSet;

use ruff_python_ast::visitor::{Visitor, walk_expr};
use ruff_python_ast::{Expr, ExprAttribute, ExprContext};
use ruff_text_size::Ranged;

use super::error::ConditionProblem;
use super::python::Parsed;

/// Most levels of an expression, which Python's own compiler bounds as well.
const MAX_DEPTH: usize = 150;

/// Built-in names of Python.
pub const BUILTINS: &str = "abs all any ascii bin bool bytearray bytes callable chr complex dict divmod enumerate filter \
    float format frozenset hex int isinstance issubclass iter len list map max min next oct ord pow range repr reversed \
    round set slice sorted str sum tuple type zip";

/// Modules, each with its names.
pub const MODULES: [(&str, &str); 10] = [
    (
        "base64",
        "a85decode a85encode b16decode b16encode b32decode b32encode b32hexdecode b32hexencode b64decode \
        b64encode b85decode b85encode decodebytes encodebytes standard_b64decode standard_b64encode urlsafe_b64decode \
        urlsafe_b64encode",
    ),
    ("datetime", "MAXYEAR MINYEAR UTC date datetime time timedelta timezone tzinfo"),
    (
        "hashlib",
        "algorithms_available algorithms_guaranteed blake2b blake2s md5 new pbkdf2_hmac scrypt sha1 sha224 sha256 \
        sha384 sha3_224 sha3_256 sha3_384 sha3_512 sha512 shake_128 shake_256",
    ),
    ("json", "JSONDecodeError JSONDecoder JSONEncoder dumps loads"),
    (
        "math",
        "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1 \
        fabs factorial floor fma fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma \
        log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt sumprod tan tanh tau \
        trunc ulp",
    ),
    (
        "re",
        "A ASCII DOTALL I IGNORECASE M MULTILINE Match NOFLAG Pattern RegexFlag S U UNICODE VERBOSE X compile error \
        escape findall finditer fullmatch match search split sub subn",
    ),
    (
        "statistics",
        "NormalDist StatisticsError correlation covariance fmean geometric_mean harmonic_mean kde \
        linear_regression mean median median_grouped median_high median_low mode multimode pstdev pvariance quantiles \
        stdev variance",
    ),
    ("urllib", "parse"),
    (
        "urllib.parse",
        "parse_qs parse_qsl quote quote_from_bytes quote_plus unquote unquote_plus unquote_to_bytes urldefrag \
        urlencode urljoin urlparse urlsplit urlunparse urlunsplit",
    ),
    (
        "zlib",
        "MAX_WBITS Z_BEST_COMPRESSION Z_BEST_SPEED Z_DEFAULT_COMPRESSION adler32 compress compressobj crc32 decompress \
        decompressobj error",
    ),
];

/// Members of `request`: those of Flask's, and those of the record.
const REQUEST: &str = "accept_charsets accept_encodings accept_languages accept_mimetypes access_route args authorization \
    base_url cache_control content_encoding content_length content_md5 content_type cookies data date environ files form \
    full_path get_data get_json headers host host_url if_match if_modified_since if_none_match if_range \
    if_unmodified_since is_json is_multiprocess is_multithread is_run_once is_secure json max_forwards method mimetype \
    mimetype_params origin path pragma query_string range referrer remote_addr remote_user root_path root_url scheme \
    script_root server stream url url_root user_agent values key offset partition timestamp topic";

/// Members of Python's own types, among which the nearest to a misspelt one is sought. Values of other types have more.
const MEMBERS: &str = "add append as_integer_ratio astimezone bit_count bit_length capitalize casefold center clear combine \
    copy count ctime date day days decode difference discard encode end endswith expandtabs extend find findall finditer \
    format format_map from_bytes fromhex fromisoformat fromkeys fromordinal fromtimestamp fullmatch get group groupdict \
    groups hex hour index insert intersection is_integer isalnum isalpha isascii isdecimal isdigit isdisjoint isidentifier \
    islower isnumeric isocalendar isoformat isoweekday isprintable isspace issubset issuperset istitle isupper items join \
    keys lastgroup lastindex ljust lower lstrip maketrans match microsecond microseconds minute month partition pattern pop \
    popitem remove removeprefix removesuffix replace reverse rfind rindex rjust rpartition rsplit rstrip search second \
    seconds setdefault sort span split splitlines start startswith strftime string strip strptime sub subn swapcase \
    symmetric_difference time timestamp timetuple timetz title to_bytes toordinal total_seconds translate tzinfo tzname \
    union update upper utcoffset utctimetuple values weekday year zfill";

/// Names of other languages and of what is near, with what to write for them.
const ALIASES: [(&str, &str); 7] = [
    ("null nil undefined", "write None"),
    ("toLowerCase to_lower lowercase", "use .lower()"),
    ("toUpperCase to_upper uppercase", "use .upper()"),
    ("trim", "use .strip()"),
    ("indexOf index_of", "use .find()"),
    ("contains includes has", "write `x in y`"),
    ("length size", "write len(x)"),
];

const ONLY_REQUEST: &str = "an expression has only the request, and a decision is a function of it";

/// Names that are refused, with the reason.
const REFUSED: [(&str, &str); 6] = [
    ("eval exec compile", "text never becomes code"),
    ("hash id", "another number in each process: use zlib.crc32(text.encode())"),
    ("random secrets uuid", "a decision is a function of the request: use `strategy: weighted` with `sticky_by`"),
    ("time now today utcnow", "a decision is a function of the request: use request.timestamp"),
    (
        "breakpoint delattr dir exit getattr globals hasattr help input locals object open print quit setattr super vars",
        ONLY_REQUEST,
    ),
    (
        "asyncio ctypes glob importlib io os pathlib platform requests shutil signal socket subprocess sys tempfile threading",
        ONLY_REQUEST,
    ),
];

/// Checks every name of an expression, which may use these shared names besides. Returns those that it uses.
///
/// # Errors
/// Fails with the first name that is unknown or refused.
pub(super) fn check<'a>(parsed: &'a Parsed<'_>, shared: &[&str]) -> Result<Vec<(&'a str, &'a Expr)>, ConditionProblem> {
    let mut bound = Bound::default();
    bound.visit_expr(&parsed.tree);
    let mut names = Names { parsed, shared, bound: bound.0, used: Vec::new(), depth: 0, problem: None };
    names.visit_expr(&parsed.tree);
    names.problem.map_or(Ok(names.used), Err)
}

/// Tells whether a person may give this name to an expression.
pub(super) fn is_free(name: &str) -> bool {
    let mut characters = name.chars();
    let is_identifier = characters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_');
    is_identifier && !is_known(name) && refusal(name).is_none() && !has("None True False", name)
}

fn is_known(name: &str) -> bool {
    name == "request" || has(BUILTINS, name) || MODULES.iter().any(|(module, _)| *module == name)
}

fn has(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|known| known == name)
}

fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(names, _)| has(names, name)).map(|(_, reason)| *reason)
}

fn alias(name: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(names, _)| has(names, name)).map(|(_, instead)| *instead)
}

/// Returns the nearest of these names, if it is near.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>, least: f64) -> Option<&'n str> {
    let written = name.to_lowercase();
    let nearness = |known: &str| strsim::normalized_damerau_levenshtein(&written, &known.to_lowercase());
    let near = known.map(|known| (nearness(known), known)).filter(|(nearness, _)| *nearness >= least);
    near.max_by(|(left, _), (right, _)| left.total_cmp(right)).map(|(_, known)| known)
}

/// Tells whether an expression reads anything of the request.
pub(super) fn looks_at_request(parsed: &Parsed<'_>) -> bool {
    has_name(parsed, "request")
}

/// Tells whether this name stands in an expression.
pub(super) fn has_name(parsed: &Parsed<'_>, name: &str) -> bool {
    let mut found = Found { name, found: false };
    found.visit_expr(&parsed.tree);
    found.found
}

struct Found<'n> {
    name: &'n str,
    found: bool,
}

impl Visitor<'_> for Found<'_> {
    fn visit_expr(&mut self, expression: &Expr) {
        self.found |= matches!(expression, Expr::Name(name) if name.id.as_str() == self.name);
        walk_expr(self, expression);
    }
}

/// The names that an expression itself binds.
#[derive(Default)]
struct Bound<'a>(HashSet<&'a str>);

impl<'a> Visitor<'a> for Bound<'a> {
    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(name) if name.ctx == ExprContext::Store => {
                self.0.insert(name.id.as_str());
            }
            Expr::Lambda(lambda) => {
                let parameters = lambda.parameters.iter().flat_map(|parameters| parameters.iter());
                self.0.extend(parameters.map(|parameter| parameter.name().as_str()));
            }
            _ => {}
        }
        walk_expr(self, expression);
    }
}

struct Names<'a, 'p, 's> {
    parsed: &'a Parsed<'p>,
    shared: &'s [&'s str],
    bound: HashSet<&'a str>,
    used: Vec<(&'a str, &'a Expr)>,
    depth: usize,
    problem: Option<ConditionProblem>,
}

impl<'a> Visitor<'a> for Names<'a, '_, '_> {
    fn visit_expr(&mut self, expression: &'a Expr) {
        if self.problem.is_some() {
            return;
        }
        let checked = match expression {
            _ if self.depth >= MAX_DEPTH => {
                let hint = Some("split it over several routes");
                Err(self.parsed.problem(expression, "the expression is nested too deeply", hint))
            }
            Expr::Name(name) => self.name(expression, name.id.as_str()),
            Expr::Attribute(attribute) => self.member(attribute),
            Expr::Await(_) | Expr::Yield(_) | Expr::YieldFrom(_) => {
                Err(self.parsed.problem(expression, "a condition cannot wait or yield", None))
            }
            _ => Ok(()),
        };
        self.problem = checked.err();
        self.depth += 1;
        walk_expr(self, expression);
        self.depth -= 1;
    }
}

impl<'a> Names<'a, '_, '_> {
    fn name(&mut self, expression: &'a Expr, name: &'a str) -> Result<(), ConditionProblem> {
        if name.starts_with('_') && name != "_" {
            return Err(self.private(expression, name));
        }
        if self.bound.contains(name) || is_known(name) {
            return Ok(());
        }
        if self.shared.contains(&name) {
            self.used.push((name, expression));
            return Ok(());
        }
        if let Some(reason) = refusal(name) {
            return Err(self.parsed.problem(expression, format!("`{name}` is refused"), Some(reason)));
        }
        let modules = || MODULES.iter().map(|(module, _)| *module).filter(|module| *module != "urllib.parse");
        let (message, hint) = if let Some(instead) = alias(name) {
            (format!("there is no name '{name}'"), instead.to_owned())
        } else if has(REQUEST, name) {
            return Err(self.unknown(expression, format!("name '{name}'"), &format!("request.{name}")));
        } else {
            let known = ["request", "True", "False", "None"].into_iter().chain(self.shared.iter().copied());
            let known = known.chain(modules()).chain(BUILTINS.split_ascii_whitespace());
            if let Some(near) = nearest(name, known, 0.6) {
                return Err(self.unknown(expression, format!("name '{name}'"), near));
            }
            let modules: Vec<&str> = modules().collect();
            (
                format!("there is no name '{name}'"),
                format!("text needs quotes around it; the modules are {}", modules.join(", ")),
            )
        };
        Err(self.parsed.problem(expression, message, Some(&hint)))
    }

    fn member(&self, attribute: &'a ExprAttribute) -> Result<(), ConditionProblem> {
        let (name, at) = (attribute.attr.as_str(), &attribute.attr);
        if name.starts_with('_') {
            return Err(self.private(at, name));
        }
        if matches!(name, "now" | "today" | "utcnow") {
            return Err(self.parsed.problem(at, format!("`.{name}()` is refused"), refusal(name)));
        }
        let of = self.path(&attribute.value).unwrap_or_default();
        let module = MODULES.iter().find(|(module, _)| *module == of).map(|(_, names)| *names);
        match if of == "request" { Some(REQUEST) } else { module } {
            Some(names) if has(names, name) => Ok(()),
            Some(names) => {
                let what = format!("'{of}.{name}'");
                let near = nearest(name, names.split_ascii_whitespace(), 0.6);
                if let Some(near) = near {
                    return Err(self.unknown(at, what, &format!("{of}.{near}")));
                }
                let hint = match (of.as_str(), name) {
                    ("request", "body" | "payload" | "value") => {
                        "use request.json() or request.get_data(as_text=True)".to_owned()
                    }
                    ("request", _) => {
                        "use json(), headers, args, method, path, content_type, key, topic or partition".to_owned()
                    }
                    _ => format!("{of} has {}", names.split_ascii_whitespace().collect::<Vec<_>>().join(", ")),
                };
                Err(self.parsed.problem(at, format!("there is no {what}"), Some(&hint)))
            }
            None if has(MEMBERS, name) => Ok(()),
            None => {
                let near = || nearest(&name.replace('_', ""), MEMBERS.split_ascii_whitespace(), 0.8);
                let instead = alias(name).map(str::to_owned).or_else(|| near().map(|near| format!("use .{near}()")));
                let refused = |instead: String| {
                    self.parsed.problem(at, format!("there is no method `.{name}()`"), Some(&instead))
                };
                instead.map_or(Ok(()), |instead| Err(refused(instead)))
            }
        }
    }

    /// Returns the path of an expression such as `urllib.parse`, if it begins at a name that is not bound.
    fn path(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Name(name) => (!self.bound.contains(name.id.as_str())).then(|| name.id.to_string()),
            Expr::Attribute(attribute) => Some(format!("{}.{}", self.path(&attribute.value)?, attribute.attr)),
            _ => None,
        }
    }

    fn unknown(&self, at: &impl Ranged, what: String, near: &str) -> ConditionProblem {
        self.parsed.problem(at, format!("there is no {what}; did you mean '{near}'?"), None)
    }

    fn private(&self, at: &impl Ranged, name: &str) -> ConditionProblem {
        self.parsed.problem(at, format!("`{name}` is refused"), Some("names that begin with `_` are Python's own"))
    }
}
