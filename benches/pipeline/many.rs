//! Measures one loaded model to a hundred: the first call of one more, a warm call, and memory.

use tokio::runtime::Runtime;

use crate::host_memory::memory_of_tree;
use crate::models::{ask, hosting, registry};
use crate::plot::{Curve, Plot};
use crate::statistics::{median, milliseconds};
use crate::support::{Caller, Mlflow};
use crate::table::Row;

const MODELS: [usize; 5] = [1, 3, 10, 30, 100];
/// Warm calls at each point, in turn over all loaded models.
const CALLS: usize = 200;

/// Holds the measurements with this many models loaded.
struct Point {
    models: f64,
    /// Times of the first calls of the models loaded since the point before, in milliseconds.
    first: f64,
    warm: f64,
    /// Memory of Signalbox and all its processes, in MiB.
    memory: f64,
}

pub(crate) fn run() -> Vec<Row> {
    let mlflow = registry(MODELS[MODELS.len() - 1] + 1);
    let points = Runtime::new().unwrap().block_on(grow(mlflow));
    println!("\n{:<10} {:>16} {:>14} {:>14}", "models", "first call, ms", "warm p50, ms", "memory, MiB");
    for point in &points {
        println!("{:<10} {:>16.1} {:>14.2} {:>14.1}", point.models, point.first, point.warm, point.memory);
    }
    let curve = |name, value: fn(&Point) -> f64| {
        Curve::new(name, points.iter().map(|point| (point.models, value(point))).collect())
    };
    Plot {
        file: "sweep-models",
        title: "Latency over HTTP by the number of loaded models",
        across: "models loaded",
        up: "ms, p50",
        curves: vec![
            curve("the first call of one more", |point| point.first),
            curve("a warm call", |point| point.warm),
        ],
    }
    .draw_logarithmic();
    Plot {
        file: "sweep-models-memory",
        title: "Memory by the number of loaded models",
        across: "models loaded",
        up: "MiB (PSS) of Signalbox and all its processes",
        curves: vec![curve("signalbox", |point| point.memory)],
    }
    .draw();
    Vec::new()
}

async fn grow(mlflow: &Mlflow) -> Vec<Point> {
    let most = MODELS[MODELS.len() - 1];
    let signalbox = hosting(mlflow, most + 1).models("memory_limit: 16GiB").start();
    let caller = Caller::of(&signalbox);
    // One model is loaded beforehand, so that the template has imported what it needs for this kind of model.
    ask(&caller, most + 1).await;
    caller.tell(&format!("model-{}/1", most + 1), "unload").await;
    let mut points = Vec::new();
    let mut loaded = 0;
    for models in MODELS {
        let mut first = Vec::new();
        while loaded < models {
            loaded += 1;
            first.push(milliseconds(ask(&caller, loaded).await));
        }
        let mut warm = Vec::new();
        for call in 0..CALLS {
            warm.push(milliseconds(ask(&caller, 1 + call % models).await));
        }
        let memory = memory_of_tree(signalbox.pid()).pss;
        points.push(Point { models: models as f64, first: median(first), warm: median(warm), memory });
    }
    points
}
