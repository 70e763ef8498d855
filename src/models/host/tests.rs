//! Hosts with the real MLflow.
