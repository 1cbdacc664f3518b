//! Docker's own description of its API, and whether an answer is what it says.
//!
//! `null` is taken for anything: Docker says it wherever a Go slice or map was never made. Which of
//! the two it says where is a matter of `shape.rs`.

use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use std::{io::Read, sync::OnceLock};

const PACKED: &[u8] = include_bytes!("description/docker-engine-v1.51.json.gz");

/// One of the 107.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: String,
    path: Vec<String>,
    responses: Map<String, Value>,
}

#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) operations: Vec<Operation>,
    definitions: Map<String, Value>,
}

/// Where Docker 28.5 itself answers otherwise than it is written, by operation and place.
const DOCKER_DEPARTS: &[(&str, &str)] = &[];

pub(crate) fn description() -> &'static Description {
    static READ: OnceLock<Description> = OnceLock::new();
    READ.get_or_init(read)
}

fn read() -> Description {
    let mut json = Vec::new();
    GzDecoder::new(PACKED).read_to_end(&mut json).unwrap();
    let mut whole: Value = serde_json::from_slice(&json).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in whole["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            operations.push(Operation {
                id: id.to_owned(),
                method: method.to_uppercase(),
                path: path.split('/').skip(1).map(str::to_owned).collect(),
                responses: operation["responses"].as_object().unwrap().clone(),
            });
        }
    }
    let Value::Object(definitions) = whole["definitions"].take() else {
        panic!("the description has no definitions")
    };
    Description { operations, definitions }
}

impl Operation {
    /// Its path with names of things that nobody has.
    pub(crate) fn example(&self) -> String {
        let nobody = |part: &String| if part.starts_with('{') { "nobody" } else { part }.to_owned();
        self.path.iter().map(nobody).fold(String::new(), |path, part| path + "/" + &part)
    }

    /// How many parts of the path it names literally, if it is this operation's.
    fn answers(&self, method: &str, parts: &[&str]) -> Option<usize> {
        let matched = self.method == method && matches(&self.path, parts);
        matched.then(|| self.path.iter().filter(|part| !part.starts_with('{')).count())
    }
}

/// A placeholder stands for one part or, as a name of an image does, for several.
fn matches(path: &[String], parts: &[&str]) -> bool {
    match (path.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((first, path)), Some((part, _))) if first.starts_with('{') => {
            !part.is_empty() && (1..=parts.len()).any(|taken| matches(path, &parts[taken..]))
        }
        (Some((first, path)), Some((part, rest))) => first == part && matches(path, rest),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

impl Description {
    /// The operation that a request of version 1.51 (or of none) asks for.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Option<&Operation> {
        let path = path.split('?').next().unwrap_or_default();
        let path = path.strip_prefix("/v1.51").unwrap_or(path).trim_start_matches('/');
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let fitting = self.operations.iter().filter_map(|operation| {
            operation.answers(method, &parts).map(|literal| (literal, operation))
        });
        fitting.max_by_key(|(literal, _)| *literal).map(|(_, operation)| operation)
    }

    /// What in an answer is not as described: empty if all is well.
    pub(crate) fn complaints(
        &self,
        operation: &Operation,
        status: u16,
        body: &[u8],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let described = operation.responses.get(&status.to_string());
        if status >= 400 {
            let message = serde_json::from_slice::<Value>(body).ok();
            if message.is_none_or(|value| value["message"].as_str().is_none_or(str::is_empty)) {
                wrong.push(format!("an error without a message: {:?}", super::http::text(body)));
            }
            return wrong;
        }
        let Some(response) = described else {
            return vec![format!("answered {status}, which is not described")];
        };
        if let (Some(schema), Ok(value)) = (response.get("schema"), serde_json::from_slice(body)) {
            self.check(schema, &value, "", &mut wrong);
        }
        let departs = |place: &String| {
            DOCKER_DEPARTS.iter().any(|(id, at)| *id == operation.id && place.starts_with(at))
        };
        wrong.retain(|place| !departs(place));
        wrong
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/")) {
            Some(name) => self.resolved(&self.definitions[name]),
            None => schema,
        }
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let schema = self.resolved(schema);
        if value.is_null() {
            return;
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.check(part, value, at, wrong);
        }
        let kind = schema["type"].as_str().unwrap_or("object");
        let fits = match kind {
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            _ => value.is_object() || schema.get("properties").is_none(),
        };
        if !fits {
            wrong.push(format!("{at} is no {kind}: {value}"));
            return;
        }
        let allowed = schema["enum"].as_array();
        if allowed.is_some_and(|allowed| !allowed.contains(value) && value != "") {
            wrong.push(format!("{at} is none of the values allowed: {value}"));
        }
        if schema["format"] == "date-time" && !is_a_time(value) {
            wrong.push(format!("{at} is no time: {value}"));
        }
        self.check_inside(schema, value, at, wrong);
    }

    fn check_inside(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        if let Some(items) = schema.get("items") {
            for item in value.as_array().into_iter().flatten() {
                self.check(items, item, &format!("{at}[]"), wrong);
            }
        }
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        for (name, inside) in value.as_object().unwrap_or(&empty) {
            let at = format!("{at}.{name}");
            if let Some(schema) = properties.get(name) {
                self.check(schema, inside, &at, wrong);
            } else if schema["additionalProperties"].is_object() {
                self.check(&schema["additionalProperties"], inside, &at, wrong);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().flat_map(Value::as_str) {
            if value.is_object() && value.get(name).is_none() {
                wrong.push(format!("{at}.{name} is missing"));
            }
        }
    }
}

fn is_a_time(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    text.is_empty() || text.parse::<jiff::Timestamp>().is_ok()
}
