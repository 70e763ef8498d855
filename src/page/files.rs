//! The page's files, which are in the binary.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;

/// Header of answers that are never the same again.
pub(super) const NOT_STORED: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// Policy of the page: nothing is loaded from elsewhere, nothing but its own files runs, and no other page shows it in
/// a frame, where a click could be stolen.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// Path, media type and text of each file.
const FILES: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("files/index.html")),
    ("/page/style.css", CSS, include_str!("files/style.css")),
    ("/page/icon.svg", ICON, include_str!("files/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("files/main.js")),
    ("/page/render.js", SCRIPT, include_str!("files/render.js")),
    ("/page/sections.js", SCRIPT, include_str!("files/sections.js")),
    ("/page/plot.js", SCRIPT, include_str!("files/plot.js")),
    ("/page/actions.js", SCRIPT, include_str!("files/actions.js")),
    ("/page/request.js", SCRIPT, include_str!("files/request.js")),
];

/// Serves the files. They are asked for each time, since another version of Signalbox may have others.
pub(super) fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |routes, (path, media_type, text)| {
        routes.route(path, get(move || async move { file(media_type, text) }))
    })
}

fn file(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}
