//! The OpenAPI document: made from the handlers, completed here with what every call has in common.

use super::PREFIX;
use super::error::ErrorBody;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};

/// Path of the document.
pub const OPENAPI_PATH: &str = "/openapi.json";
/// Path of the browsable page.
pub const DOCS_PATH: &str = "/docs";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "CRM Dispatch",
        description = "Plans and tracks the visits of field technicians.\n\n\
            Every call needs a bearer token; the tenant comes from the token alone. Repeat a POST safely with an \
            `Idempotency-Key`; guard a change with `If-Match` and the `ETag` that was read. A W3C `traceparent` is carried \
            through. Every error has the same body, with a stable code in `error`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody)),
    security(("bearer" = [])),
    tags(
        (name = "dispatches", description = "Visits: request, assign, confirm, move, cancel, read"),
        (name = "technicians", description = "Who there is, who could go, what they can do and when"),
        (name = "locations", description = "Sites"),
        (name = "devices", description = "Phones and how far behind they are"),
        (name = "exceptions", description = "What a person must decide"),
        (name = "events", description = "The journal of published events, and the way in for consumed ones"),
        (name = "reports", description = "Audit trail and service levels"),
        (name = "sync", description = "Phones"),
        (name = "health", description = "For load balancers and supervisors"),
    ),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "`crm-dispatch token` makes one; claims: sub, tenant, roles, technician, iss, aud, nbf, exp",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Title, security and tags; the paths come from the routes.
pub(super) fn skeleton() -> OpenApi {
    Document::openapi()
}

/// Adds to every call what all have in common: headers, and the errors that layers and extractors answer.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let api = path.starts_with(PREFIX);
        for operation in [&mut item.post, &mut item.put].into_iter().flatten() {
            add_change(operation);
        }
        for operation in operations(item) {
            add_common(operation, api, path.contains('{'));
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

fn add_change(operation: &mut Operation) {
    let header = |name: &str, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build()
            .into()
    };
    operation.parameters.get_or_insert_default().extend([
        header(
            "Idempotency-Key",
            "A random key: sent again with the same request, the first answer is given again and nothing is done twice",
        ),
        header("If-Match", "The `ETag` that was read: another revision by now is an error, and nothing is done"),
    ]);
    for (status, description) in [
        ("400", "`JSON_MALFORMED`, `IDEMPOTENCY_KEY_INVALID`"),
        ("412", "`REVISION_MISMATCH`: read it again and decide again"),
        ("413", "`BODY_TOO_LARGE`"),
        ("415", "`UNSUPPORTED_MEDIA_TYPE`"),
        ("422", "`VALIDATION_FAILED`, `IDEMPOTENCY_KEY_REUSED`"),
    ] {
        add_error(operation, status, description);
    }
    let replay = HeaderBuilder::new()
        .description(Some("`true` when the answer was remembered under the Idempotency-Key"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            response.headers.insert("Idempotent-Replay".to_owned(), replay.clone().into());
        }
    }
}

fn add_common(operation: &mut Operation, api: bool, has_ids: bool) {
    if api {
        add_error(operation, "401", "`TOKEN_MISSING`, `TOKEN_EXPIRED`, …: see the header WWW-Authenticate");
        add_error(operation, "403", "`FORBIDDEN`: `details.roles` says who may");
        if has_ids || operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
            add_error(operation, "422", "`VALIDATION_FAILED`: `details.field` says what");
        }
    }
    add_error(operation, "500", "`INTERNAL`");
    add_error(operation, "503", "`SERVER_BUSY`, `BUSY`, `DATABASE_UNAVAILABLE`: see the header Retry-After");
    add_error(operation, "504", "`SERVER_TIMEOUT`");
    // Errors that a handler described in words get the body too.
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with('4') || status.starts_with('5'), response) {
            response.content.entry("application/json".to_owned()).or_insert_with(|| error_content().into());
        }
    }
}

fn add_error(operation: &mut Operation, status: &str, description: &str) {
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
        ResponseBuilder::new().description(description).content("application/json", error_content()).build().into()
    });
}

fn error_content() -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build()
}
