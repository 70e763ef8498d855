//! Tests what hosts find out about their models: whether a model answers each row as if it were alone.

use super::*;
use crate::invocation::row_independence::Finding;

/// A script that saves models in directories of these names.
const SAVE: &str = r#"
import os, sys
os.environ.update(GIT_PYTHON_REFRESH="quiet", MLFLOW_DISABLE_TELEMETRY="true")
import mlflow, numpy, pandas, xgboost
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
rows = pandas.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
classes, two = [0, 1, 0, 1], numpy.array([[0, 1], [1, 1], [0, 0], [1, 0]])
inputs = Schema([ColSpec("double", "a"), ColSpec("double", "b")])
class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["a"]
def save(name, model, **more):
    mlflow.sklearn.save_model(model, os.path.join(sys.argv[1], name), serialization_format="cloudpickle", pip_requirements=["mlflow"], **more)
good = make_pipeline(StandardScaler(), LinearRegression()).fit(rows, classes)
save("known", good, signature=ModelSignature(inputs=inputs))
save("function", make_pipeline(FunctionTransformer(lambda it: it - it.mean()), LinearRegression()).fit(rows, classes))
save("two-targets", RandomForestClassifier(3).fit(rows, two), pyfunc_predict_fn="predict_proba")
save("params", good, signature=ModelSignature(inputs=inputs, params=ParamSchema([ParamSpec("n", "long", 1)])))
save("dates", good, signature=ModelSignature(inputs=Schema([ColSpec("double", "a"), ColSpec("datetime", "b")])))
mlflow.xgboost.save_model(
    xgboost.XGBClassifier(n_estimators=2).fit(rows, classes), os.path.join(sys.argv[1], "boosted"), pip_requirements=["mlflow"]
)
for name, metadata in (("own", None), ("own-declared", {"signalbox.batch": "rows"}), ("own-undeclared", {"signalbox.batch": "off"})):
    mlflow.pyfunc.save_model(os.path.join(sys.argv[1], name), python_model=Own(), metadata=metadata, pip_requirements=["mlflow"])
"#;

/// Runs one of the scripts beside this file with the programs of hosts, and expects it to print nothing.
pub(super) fn tries(script: &str) {
    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/src/models/host/python");
    let output = Command::new(python()).args(["-c", script, programs]).env("OMP_NUM_THREADS", "1").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{errors}");
}

#[test]
#[ignore = "needs the libraries of models; tests/run installs them"]
fn known_classes_answer_row_by_row_and_others_are_doubted() {
    tries(include_str!("independence.py"));
}

#[test]
#[ignore = "needs the libraries of models; tests/run installs them"]
fn graph_is_doubted_when_it_mixes_rows() {
    tries(include_str!("graphs.py"));
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_reports_whether_its_model_answers_row_by_row_when_it_loads() {
    let world = HostWorld::new(spec());
    let mut saving = Command::new(python());
    let saved = saving.args(["-c", SAVE]).arg(world.directory.path()).output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    for (model, says) in [
        ("known", None),
        ("boosted", None),
        ("function", Some("FunctionTransformer calls a function")),
        ("two-targets", Some("has several targets")),
        ("params", Some("its params")),
        ("dates", Some("a column of datetime")),
        ("own", Some("what mlflow.pyfunc.model loads may look at all rows")),
        ("own-undeclared", Some("what mlflow.pyfunc.model loads may look at all rows")),
    ] {
        let (_, report) = world.start(&world.directory.path().join(model)).await.unwrap();
        match (&report.warm_up.finding, says) {
            (Finding::Independent, None) => {}
            (Finding::Doubtful(why), Some(says)) if why.contains(says) => {}
            (finding, _) => panic!("{model}: {finding:?}"),
        }
        // A load that a request waits for takes the earlier results as read.
        let (_, again) = world.start_proven(&world.directory.path().join(model), report.warm_up.clone()).await.unwrap();
        assert_eq!(again.warm_up, report.warm_up);
    }
    let (_, report) = world.start(&world.directory.path().join("own-declared")).await.unwrap();
    assert_eq!(report.warm_up.finding, Finding::Declared);
    world.end().await;
}
