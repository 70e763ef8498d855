//! Tests the patches of MLflow against the real MLflow.

use super::independence::tries;

#[test]
#[ignore = "needs MLflow; tests/run starts it"]
fn each_patch_fits_this_mlflow_and_is_left_out_of_a_changed_one() {
    tries(include_str!("mlflow_patches.py"));
}
