//! `signalbox route`: explains which route a request would take, and why. Nothing is invoked.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;

use super::failure::Failure;
use crate::check;
use crate::evaluators;
use crate::message::{HeadersBuilder, Request, Source, header};
use crate::routing::{DecisionService, Explanation, Parts, RoutingTable};
use crate::telemetry::Metrics;

/// Examples of `signalbox route`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox route --config signalbox.yaml --header x-tier:gold
  signalbox route --config signalbox.yaml --endpoint sentiment-router --body request.json
  echo '{\"inputs\": [1]}' | signalbox route --config signalbox.yaml --body -";

/// Holds the arguments of `signalbox route`.
#[derive(Debug, clap::Args)]
pub(super) struct RouteArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The endpoint that is called, as the header `endpoint` names it; not needed if there is one.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// A header of the request; may be given several times.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The record's key, for conditions and shares that look at it.
    #[arg(long)]
    key: Option<String>,
    /// A file with the payload; `-` reads it from standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The HTTP method, for a request that comes in by HTTP.
    #[arg(long)]
    method: Option<String>,
    /// The path and query, for a request that comes in by HTTP.
    #[arg(long, value_name = "PATH?QUERY")]
    target: Option<String>,
    /// Ask the service outside that decides for the endpoint, where there is one. Without this, it is only shown what
    /// it would be told.
    #[arg(long)]
    ask: bool,
}

/// Prints the explanation as JSON. Exits with 0 when there is a route, and with 1 when the request would get a fault.
pub(super) fn run(args: &RouteArgs) -> Result<ExitCode, Failure> {
    let is_routed = explain(args).and_then(|explanation| print(&explanation)).map_err(Failure::usage)?;
    Ok(if is_routed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(args: &RouteArgs) -> Result<Explanation, String> {
    let loaded = check::load(&args.config).map_err(|report| report.to_string())?;
    let table = RoutingTable::build(&loaded.config)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let request = Arc::new(request(args)?);
    let endpoint = match table.endpoint(&request) {
        Ok(endpoint) => endpoint,
        Err(fault) => {
            let name = args.endpoint.as_deref().unwrap_or_default();
            return Ok(Explanation::of_fault(name.into(), &fault));
        }
    };
    let parts = endpoint.parts();
    let questions = endpoint.question().into_iter().chain(parts.iter().filter_map(Parts::question));
    let asked: Vec<_> = questions.map(|question| (Arc::clone(question), Arc::clone(&request))).collect();
    let mut said = match &asked[..] {
        [] => Vec::new(),
        asked => evaluators::try_out(&loaded.config, asked)
            .map_err(|reason| format!("a condition needs Python, which cannot be started: {reason}"))?,
    }
    .into_iter();
    let answers = endpoint.question().and_then(|_| said.next());
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let outside = DecisionService::new(&loaded.config.model_endpoints[endpoint.index], &metrics);
    let mut explanation = match outside.filter(|_| args.ask) {
        Some(outside) => runtime()?.block_on(endpoint.explain_asking(&request, answers.as_ref(), &outside)),
        None => endpoint.explain(&request, answers.as_ref()),
    };
    for (condition, parts) in explanation.conditions.iter_mut().zip(&parts) {
        let answers = parts.question().and_then(|_| said.next());
        condition.show(parts.values(&request, answers));
    }
    Ok(explanation)
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

/// Prints the explanation, and tells whether there is a route.
fn print(explanation: &Explanation) -> Result<bool, String> {
    let text = serde_json::to_string_pretty(explanation).map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())?;
    Ok(explanation.route.is_some())
}

fn request(args: &RouteArgs) -> Result<Request, String> {
    let mut headers = HeadersBuilder::default();
    if let Some(endpoint) = &args.endpoint {
        headers.push(header::ENDPOINT, Some(endpoint.as_bytes()));
    }
    // A request that came in by HTTP is told by its request line, as the shim writes it.
    if args.method.is_some() || args.target.is_some() {
        let method = args.method.as_deref().unwrap_or("POST");
        let line = format!("{method} {}", args.target.as_deref().unwrap_or("/invocations"));
        headers.push(header::HTTP_TARGET, Some(line.as_bytes()));
    }
    for (name, value) in &args.headers {
        headers.push(name, Some(value.as_bytes()));
    }
    Ok(Request {
        source: Source { topic: "signalbox-route".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: args.key.clone().map(Bytes::from),
        payload: args.body.as_ref().map(read).transpose()?,
        headers: headers.finish(),
        parked: None,
    })
}

fn read(path: &PathBuf) -> Result<Bytes, String> {
    let read = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map(Bytes::from).map_err(|error| format!("{}: {error}", path.display()))
}

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME:VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
