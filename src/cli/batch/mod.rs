//! `signalbox batch`: asks an endpoint about each row of a file.

#![expect(clippy::print_stderr, reason = "it is the command line that speaks, and standard output may be the answers")]

mod display;
mod router;

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ArgGroup;

use super::failure::Failure;
use super::route::parse_header;
use crate::app::stop_signal;
use crate::batch::{Batch, BatchError, BatchSummary, Format, Plan, Prepared, PreparedBatch, RunSettings};
use display::Display;
use router::Router;

/// Examples of `signalbox batch`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox batch --brokers kafka-1:9092 --endpoint sentiment-router --input in.jsonl --output out.jsonl
  signalbox batch --config signalbox.yaml --attach --endpoint sentiment-router --input in.csv --output out.parquet
  signalbox batch --config signalbox.yaml --endpoint sentiment-router --input in.parquet --output out.csv --columns id
  signalbox batch --config signalbox.yaml --endpoint sentiment-router --input in.csv --output out.csv --dry-run
  cat in.jsonl | signalbox batch --brokers kafka-1:9092 --input - --output - >out.jsonl";

/// Holds the arguments of `signalbox batch`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("where").args(["brokers", "config"]).required(true)))]
pub(super) struct BatchArgs {
    /// The brokers of a router that runs, as host:port, several with commas between them.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Router")]
    brokers: Option<String>,
    /// A config file: a router is started with it, and ends with the batch.
    #[arg(long, value_name = "FILE", help_heading = "Router")]
    config: Option<PathBuf>,
    /// Use the router that runs with the config file; brokers, topics and properties are taken from there.
    #[arg(long, requires = "config", help_heading = "Router")]
    attach: bool,
    /// The router's kafka.requests_topic.
    #[arg(
        long,
        value_name = "TOPIC",
        requires = "brokers",
        default_value = "inference-requests",
        help_heading = "Router"
    )]
    requests_topic: String,
    /// The router's kafka.replies_topic, or a topic that its kafka.allowed_reply_topics allows.
    #[arg(
        long,
        value_name = "TOPIC",
        requires = "brokers",
        default_value = "inference-replies",
        help_heading = "Router"
    )]
    replies_topic: String,
    /// A property of librdkafka, such as security.protocol=SASL_SSL; may be given several times.
    #[arg(short = 'X', long = "property", value_name = "KEY=VALUE", value_parser = parse_property, requires = "brokers", help_heading = "Router")]
    properties: Vec<(String, String)>,

    /// The endpoint to ask; not needed if there is one.
    #[arg(long, value_name = "NAME", help_heading = "Requests")]
    endpoint: Option<String>,
    /// Greatest number of rows in one request.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = parse_count, help_heading = "Requests")]
    rows: usize,
    /// Parameters of the inference, a JSON object.
    #[arg(long, value_name = "JSON", value_parser = parse_params, help_heading = "Requests")]
    params: Option<String>,
    /// A header of each request, such as x-tier:gold; may be given several times.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header, help_heading = "Requests")]
    headers: Vec<(String, String)>,
    /// Take the model's whole answer as the prediction, and ask about each row alone: for models that do not answer row by
    /// row.
    #[arg(long, help_heading = "Requests")]
    whole: bool,
    /// Greatest number of requests under way at once; fewer while the router is too busy.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = parse_count, help_heading = "Requests")]
    in_flight: usize,
    /// Time for an answer, after which a request is sent again.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration, help_heading = "Requests")]
    timeout: Duration,
    /// Attempts at a request that fails for a reason that may pass.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Requests")]
    attempts: u32,
    /// Time without any answer after which the command stops, to be gone on with later.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, help_heading = "Requests")]
    patience: Duration,

    /// The file with the rows; `-` is standard input, of which a run that goes on needs to be given all of it again.
    #[arg(long, value_name = "IN", help_heading = "Files")]
    input: PathBuf,
    /// The file for the answers; `-` is standard output, where a run cannot be gone on with.
    #[arg(long, value_name = "OUT", help_heading = "Files")]
    output: PathBuf,
    /// Format of the input. Default: by the end of its name; of standard input jsonl.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Files")]
    input_format: Option<Format>,
    /// Format of the output. Default: by the end of its name; of standard output jsonl.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Files")]
    output_format: Option<Format>,
    /// Columns of the input to be in the output, with commas between them; '' takes none. Default: all.
    #[arg(long, value_name = "NAMES", help_heading = "Files")]
    columns: Option<String>,
    /// Name of the column of the answers.
    #[arg(long, value_name = "NAME", default_value = "prediction", help_heading = "Files")]
    prediction: String,
    /// A column of a CSV file that is text, whatever it looks like; may be given several times.
    #[arg(long, value_name = "NAME", help_heading = "Files")]
    text: Vec<String>,
    /// Replace the output if it is there.
    #[arg(long, help_heading = "Files")]
    overwrite: bool,
    /// Begin anew, also where an earlier run could be gone on with.
    #[arg(long, help_heading = "Files")]
    restart: bool,
    /// Write nothing: say how many requests and bytes there are, and by a trial of a few seconds with the first rows, whose
    /// answers are thrown away, about how long all take.
    #[arg(long, help_heading = "Files")]
    dry_run: bool,
}

/// Asks about all rows. Exits with 1 when some have failed.
pub(super) fn run(args: &BatchArgs) -> Result<ExitCode, Failure> {
    let mut batch = batch(args)?;
    let stop = Arc::new(AtomicBool::new(false));
    let router = Router::find(args, &stop)?;
    batch.run.in_flight = router.most_in_flight().map_or(args.in_flight, |most| args.in_flight.min(most));
    watch_signals(&stop);
    if args.dry_run {
        return dry_run(batch, router, &stop);
    }
    match batch.prepare()? {
        Prepared::Finished(summary) => {
            eprintln!("signalbox batch: an earlier run has done all {} rows: {}", summary.rows, args.output.display());
            Ok(exit_code(&summary))
        }
        Prepared::Batch(prepared) => ask(*prepared, router, &stop),
    }
}

fn ask(batch: PreparedBatch, router: Router, stop: &AtomicBool) -> Result<ExitCode, Failure> {
    if batch.rows_before() > 0 {
        eprintln!("signalbox batch: {} rows are done already; going on after them", batch.rows_before());
    }
    let output = batch.output().to_owned();
    let mut display = Display::new();
    let result = router.with(|cluster, kafka| batch.run(cluster, kafka, stop, |progress| display.show(&progress)));
    display.finish();
    let summary = result?;
    eprintln!("signalbox batch: {}", display::summary(&summary, &output));
    Ok(exit_code(&summary))
}

fn exit_code(summary: &BatchSummary) -> ExitCode {
    if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn dry_run(batch: Batch, router: Router, stop: &AtomicBool) -> Result<ExitCode, Failure> {
    let plan = batch.plan(stop)?;
    super::print(display::plan(&plan));
    if plan.requests == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let rows = plan.rows;
    let trial = router.with(|cluster, kafka| Plan::try_out(plan, cluster, kafka, stop));
    let trial = trial.map_err(|failure| failure.because("about how long it takes cannot be told"))?;
    Ok(super::print(display::trial(&trial, rows)))
}

fn batch(args: &BatchArgs) -> Result<Batch, Failure> {
    let format = |path: &Path, given: Option<Format>, option: &str| {
        let by_name = || if path == Path::new("-") { Some(Format::Jsonl) } else { Format::of_path(path) };
        given.or_else(by_name).ok_or_else(|| {
            let message =
                format!("the name of {} does not say its format: give {option} jsonl, csv or parquet", path.display());
            Failure::from(BatchError::Usage(message))
        })
    };
    let names =
        |names: &String| names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Batch {
        input: args.input.clone(),
        input_format: format(&args.input, args.input_format, "--input-format")?,
        output: args.output.clone(),
        output_format: format(&args.output, args.output_format, "--output-format")?,
        endpoint: args.endpoint.clone(),
        rows: args.rows,
        columns: args.columns.as_ref().map(names),
        prediction: args.prediction.clone(),
        text: args.text.clone(),
        headers: args.headers.clone(),
        overwrite: args.overwrite,
        restart: args.restart,
        run: RunSettings {
            in_flight: args.in_flight,
            timeout: args.timeout,
            attempts: args.attempts,
            patience: args.patience,
            params: args.params.clone(),
            whole: args.whole,
        },
    })
}

/// Makes `stop` true at the first signal, and ends the process at the second: nothing that is noted is lost then either.
fn watch_signals(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    let watch = async move {
        stop_signal().await;
        stop.store(true, Ordering::Relaxed);
        stop_signal().await;
        process::exit(super::failure::UNFINISHED.into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    // Without the thread a signal ends the process as it ends any other, which costs no answer that is noted.
    if let Ok(runtime) = runtime {
        let _ = thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch));
    }
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("no KEY=VALUE, such as security.protocol=SASL_SSL")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "no number from 1 on".to_owned())
}

fn parse_params(text: &str) -> Result<String, String> {
    let params: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))?;
    serde_json::to_string(&params).map_err(|error| error.to_string())
}
