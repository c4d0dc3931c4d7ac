//! What the user reads when something went wrong.

use crate::cli::error::CliError;
use crate::cli::file;
use crate::cli::out::Paint;
use std::time::Duration;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

fn refused(details: ErrorDetails) -> CliError {
    let status =
        tonic::Status::with_error_details(tonic::Code::InvalidArgument, "two \u{1b}[31mfaults", details);
    CliError::Said { status: Box::new(status), source_text: None }
}

fn details() -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_bad_request(vec![
        FieldViolation::new("labels", "more than 16"),
        FieldViolation::new("input.amount", "must be a text"),
    ]);
    details.set_error_info(
        "SAGA_INVALID",
        "backstop",
        [
            ("fin_code".to_owned(), "FIN-40005".to_owned()),
            ("tier".to_owned(), "L3".to_owned()),
            ("trace_id".to_owned(), "4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ],
    );
    details.set_retry_info(Some(Duration::from_secs(2)));
    details
}

#[test]
fn all_that_the_server_says_is_shown_and_none_of_it_raw() {
    assert_eq!(
        refused(details()).render(Paint::OFF),
        "error: two \\u{1b}[31mfaults\n\
         \x20 labels: more than 16\n\
         \x20 input.amount: must be a text\n\
         \x20 code    INVALID_ARGUMENT SAGA_INVALID\n\
         \x20 fin     FIN-40005, tier L3\n\
         \x20 retry   in 2.0s\n\
         \x20 trace   4bf92f3577b34da6a3ce929d0e0e4736\n"
    );
}

#[test]
fn a_violation_in_a_file_shows_its_line_or_that_of_its_nearest_parent() {
    let text = "name: transfer\nsteps:\n  - name: debit\n    dependsOn: [x]\n";
    let source = match file::definition("transfer.yaml", text) {
        Ok((_, source)) => source,
        Err(error) => panic!("{}", error.render(Paint::OFF)),
    };
    let mut details = ErrorDetails::new();
    details.set_bad_request(vec![
        FieldViolation::new("steps[0].depends_on[0]", "there is no step \"x\""),
        FieldViolation::new("steps[0].compensation", "a COMPENSATABLE step must name one"),
        FieldViolation::new("deadline", "must be positive"),
    ]);
    let rendered = refused(details).about(source).render(Paint::OFF);
    let lines: Vec<_> = rendered.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "transfer.yaml:4:17  steps[0].depends_on[0]: there is no step \"x\"",
            "transfer.yaml:3:5  steps[0].compensation: a COMPENSATABLE step must name one",
            "transfer.yaml:1:1  deadline: must be positive",
        ]
    );
}

#[test]
fn a_status_without_details_still_says_its_code() {
    let status = Box::new(tonic::Status::not_found("there is no saga pay-7"));
    let error = CliError::Said { status, source_text: None };
    assert_eq!(error.render(Paint::OFF), "error: there is no saga pay-7\n  code    NOT_FOUND\n");
}

#[test]
fn what_the_message_says_already_is_not_said_twice() {
    let mut details = ErrorDetails::new();
    details.set_bad_request(vec![FieldViolation::new("filter", "foo is not understood")]);
    details.set_error_info("INVALID_ARGUMENT", "backstop", []);
    let status = tonic::Status::with_error_details(
        tonic::Code::InvalidArgument,
        "filter: foo is not understood",
        details,
    );
    let error = CliError::Said { status: Box::new(status), source_text: None };
    assert_eq!(
        error.render(Paint::OFF),
        "error: filter: foo is not understood\n  code    INVALID_ARGUMENT\n"
    );
}
