//! Makes models written by hand, which need no registry.

use std::path::{Path, PathBuf};

use super::{Mlflow, Signalbox, fresh_directory};

/// Makes a directory with a model, whose class `Model` this text defines.
pub(crate) fn handmade(text: &str) -> PathBuf {
    let directory = fresh_directory("handmade");
    std::fs::create_dir(directory.join("code")).unwrap();
    let code = format!("{text}\n\ndef _load_pyfunc(path):\n    return Model()\n");
    std::fs::write(directory.join("code/handmade.py"), code).unwrap();
    std::fs::write(directory.join("requirements.txt"), "").unwrap();
    std::fs::write(directory.join("data"), "").unwrap();
    let flavor = "flavors:\n  python_function: {loader_module: handmade, code: code, data: data}\n";
    std::fs::write(directory.join("MLmodel"), flavor).unwrap();
    directory
}

/// Writes a route to the model, with more keys (`, threads: 2`).
pub(crate) fn route(alias: &str, model: &Path, keys: &str) -> String {
    format!("{{alias: {alias}, model_uri: \"{}\"{keys}}}", model.display())
}

/// Starts a Signalbox on its embedded broker that has these endpoints: of each the name, the timeout and the routes.
pub(crate) fn start(endpoints: &[(&str, &str, &[String])]) -> Signalbox {
    let endpoints: String = endpoints
        .iter()
        .map(|(name, timeout, routes)| {
            format!("  - {{name: {name}, timeout: {timeout}, routes: [{}]}}\n", routes.join(", "))
        })
        .collect();
    Signalbox::start(&format!(
        "model_endpoints:\n{endpoints}kafka: {{bootstrap_servers: embedded, partitions: 2}}\nserver: {{port: 0}}\n\
         registry: {{tracking_uri: \"http://127.0.0.1:9\"}}\nmodels: {{python: \"{}\", cache: {{directory: \"{}\"}}}}\n",
        Mlflow::python().display(),
        fresh_directory("cache").display()
    ))
}
