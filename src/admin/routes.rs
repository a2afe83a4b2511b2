//! Request → answer. Owns the route table (see the room's header); knows no socket.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::metrics::Metrics;

use super::readiness::Readiness;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

type Refresh = Box<dyn Fn(&Metrics, &Readiness) + Send + Sync>;

/// What the admin listener shows.
pub struct Admin {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    refresh: Refresh,
}

impl Admin {
    /// `refresh` is called before readiness or metrics are shown, to copy in what others keep (audit health, keys in
    /// memory); it must not block.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        refresh: impl Fn(&Metrics, &Readiness) + Send + Sync + 'static,
    ) -> Self {
        Self {
            metrics,
            readiness,
            refresh: Box::new(refresh),
        }
    }

    pub(super) fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/livez" => response(StatusCode::OK, JSON, "{\"live\":true}\n".to_owned()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => response(
                StatusCode::NOT_FOUND,
                TEXT,
                "see /livez, /readyz and /metrics\n".to_owned(),
            ),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        (self.refresh)(&self.metrics, &self.readiness);
        let missing = self.readiness.missing();
        let status = if missing.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = serde_json::json!({ "ready": missing.is_empty(), "missing": missing });
        response(status, JSON, format!("{body}\n"))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        (self.refresh)(&self.metrics, &self.readiness);
        match self.metrics.render() {
            Ok(text) => response(StatusCode::OK, PROMETHEUS, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be shown");
                response(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    "metrics cannot be shown, see the log\n".to_owned(),
                )
            }
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
