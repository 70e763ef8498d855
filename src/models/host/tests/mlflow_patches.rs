//! Tests the patches of MLflow against the real MLflow.

use super::independence::tries;

#[test]
#[ignore = "needs MLflow; tests/run starts it"]
fn patch_takes_effect_and_is_left_out_when_mlflow_changes() {
    tries(include_str!("mlflow_patches.py"));
}
