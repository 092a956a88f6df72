//! Orders to devices: who may give one, to whom, how often. What an order is: `codecs::telemetry::order`; what becomes
//! of it: `device::orders`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use kerbside_codecs::telemetry::order::Wanted;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Room;
use super::auth::Viewer;
use super::headers::Problem;
use super::serve::Client;
use crate::device::orders::{Giver, Order, OrderId, Orders, Refusal};
use crate::ids::DeviceId;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;
/// Orders that one user may give at once, and how often one more.
const BURST: u32 = 30;
const ONE_MORE: Duration = Duration::from_secs(2);
/// Users whose pace is remembered; who has rested is forgotten first.
const USERS_MAX: usize = 1024;

struct Desk {
    orders: Orders,
    pace: Pace,
}

pub(super) fn router(orders: Orders, room: &Arc<Room>) -> Router {
    let desk = Arc::new(Desk {
        orders,
        pace: Pace::default(),
    });
    Router::new()
        .route("/api/v1/devices/{id}/orders", post(give).get(of_device))
        .route("/api/v1/orders/{order}", get(one))
        .layer(Extension(desk))
        .with_state(room.clone())
}

/// `POST /api/v1/devices/{id}/orders`.
async fn give(
    State(_room): State<Arc<Room>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
    viewer: Viewer,
    Path(id): Path<String>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Response, Problem> {
    viewer.may_order()?;
    let device = desk.visible(&viewer, &id)?;
    let user = &viewer.account.user;
    if let Err(wait) = desk.pace.take(&user.name, Instant::now()) {
        let wait_s = wait.as_secs().max(1);
        let text = format!("too many orders at once; the next one in {wait_s} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, text);
        return Ok(([(header::RETRY_AFTER, wait_s.to_string())], problem).into_response());
    }
    let Json(body) = body.map_err(|e| {
        let text = format!("{}; send an order as application/json", e.body_text());
        Problem::new(e.status(), text)
    })?;
    let wanted = Wanted::read(&body).map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e))?;
    let giver = Giver {
        by: user.name.clone(),
        role: user.role.name().to_owned(),
        peer: client.addr.ip().to_canonical().to_string(),
    };
    match desk.orders.give(device, wanted, giver).await {
        Ok(order) => Ok((StatusCode::CREATED, Json(json!({"order": order}))).into_response()),
        Err(Refusal::Full(e)) => Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{e}: wait until the device has confirmed some, or they expire"),
        )),
        Err(e @ Refusal::Disk(_)) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{e}; nothing was sent, try again"),
        )),
    }
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
}

/// `GET /api/v1/devices/{id}/orders`: newest first.
async fn of_device(
    State(_room): State<Arc<Room>>,
    Extension(desk): Extension<Arc<Desk>>,
    viewer: Viewer,
    Path(id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let device = desk.visible(&viewer, &id)?;
    let Query(page) = page.map_err(|e| {
        let text = format!("{}; use ?limit=1…{LIMIT_MAX}", e.body_text());
        Problem::new(e.status(), text)
    })?;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let orders: Vec<Order> = desk.orders.book.of_device(&device, limit);
    Ok(Json(json!({"orders": orders})).into_response())
}

/// `GET /api/v1/orders/{order}`.
async fn one(
    State(_room): State<Arc<Room>>,
    Extension(desk): Extension<Arc<Desk>>,
    viewer: Viewer,
    Path(order): Path<String>,
) -> Result<Response, Problem> {
    let known = order
        .parse::<OrderId>()
        .ok()
        .and_then(|id| desk.orders.book.get(id))
        .filter(|o| desk.visible(&viewer, o.device.as_str()).is_ok());
    match known {
        Some(order) => Ok(Json(json!({"order": order})).into_response()),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no order of this id is known; they are kept for a day",
        )),
    }
}

impl Desk {
    /// The device, if there is one that this user may see; one that they may not is as if it were not there.
    fn visible(&self, viewer: &Viewer, id: &str) -> Result<DeviceId, Problem> {
        let sees_all = viewer.account.user.sees_restricted;
        DeviceId::parse(id)
            .ok()
            .filter(|id| {
                let answers_for_it = self.orders.registered(id);
                answers_for_it.is_some_and(|d| sees_all || !d.restricted)
            })
            .ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_FOUND,
                    "no device of this name is known; GET /api/v1/picture lists them",
                )
            })
    }
}

/// How fast each user gives orders: a bucket of [`BURST`].
#[derive(Default)]
struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// One more order of this user.
    ///
    /// # Errors
    /// How long to wait.
    fn take(&self, user: &str, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock();
        if all.len() >= USERS_MAX {
            all.retain(|_, full_again| *full_again > now);
        }
        // The moment at which the bucket is full again says how full it is.
        let full_again = all.entry(user.to_owned()).or_insert(now);
        let from = (*full_again).max(now);
        let ahead = (from + ONE_MORE).saturating_duration_since(now);
        let most = ONE_MORE * BURST;
        if ahead > most {
            return Err(ahead - most);
        }
        *full_again = from + ONE_MORE;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gives_a_burst_and_then_one_by_one() {
        let (pace, now) = (Pace::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(pace.take("eve", now), Ok(()));
        }
        assert_eq!(pace.take("eve", now), Err(ONE_MORE));
        assert_eq!(pace.take("bob", now), Ok(()));
        assert_eq!(pace.take("eve", now + ONE_MORE), Ok(()));
        assert!(pace.take("eve", now + ONE_MORE).is_err());
    }
}
