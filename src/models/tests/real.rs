//! Models from a real MLflow registry, which holds the two sentiment models of the quickstart.
