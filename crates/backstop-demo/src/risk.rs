//! The risk service: refuses a transfer above the limit, and changes nothing.

use crate::bank::risk as pb;
use crate::wire::{RefusalText, Shape};
use pb::risk_service_server::RiskService;
use tonic::{Code, Request, Response, Status};

/// The `google.rpc.ErrorInfo` domain of its refusals.
pub const DOMAIN: &str = "risk.bank.example";

/// One rule: no transfer above a limit.
#[derive(Debug, Clone, Copy)]
pub struct Risk {
    limit_minor: i64,
}

impl Risk {
    /// Refuses what is above the limit, in minor units of whichever currency.
    #[must_use]
    pub fn new(limit_minor: i64) -> Self {
        Self { limit_minor }
    }
}

#[tonic::async_trait]
impl RiskService for Risk {
    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        let request = request.into_inner();
        Shape::default()
            .text("transfer_id", &request.transfer_id)
            .text("from_account", &request.from_account)
            .text("to_account", &request.to_account)
            .amount("amount_minor", request.amount_minor, 1)
            .currency("currency", &request.currency)
            .check(DOMAIN)?;
        if request.amount_minor > self.limit_minor {
            return Err(RefusalText {
                code: Code::FailedPrecondition,
                domain: DOMAIN,
                reason: "ABOVE_LIMIT",
                message: format!("above the limit of {} for a single transfer", self.limit_minor),
                field: "amount_minor",
                for_customer: Some("This transfer is above your limit."),
            }
            .into_status());
        }
        // Both are at most 10^15, so neither the product nor the quotient leaves its type.
        let percent = request.amount_minor * 100 / self.limit_minor;
        Ok(Response::new(pb::CheckResponse {
            decision_id: format!("risk-{}", request.transfer_id),
            limit_used_percent: i32::try_from(percent).unwrap_or(100),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tonic_types::StatusExt;

    async fn check(amount_minor: i64) -> Result<pb::CheckResponse, Status> {
        let request = pb::CheckRequest {
            transfer_id: "t-1".into(),
            from_account: "a".into(),
            to_account: "b".into(),
            amount_minor,
            currency: "EUR".into(),
        };
        Risk::new(1_000).check(Request::new(request)).await.map(Response::into_inner)
    }

    #[tokio::test]
    async fn a_transfer_at_the_limit_passes_and_one_above_it_is_told_which_field_is_wrong() {
        let passed = check(1_000).await.unwrap();
        assert_eq!((passed.decision_id.as_str(), passed.limit_used_percent), ("risk-t-1", 100));
        let refused = check(1_001).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "ABOVE_LIMIT");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "amount_minor");
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_right_is_told_every_fault_at_once() {
        let refused = Risk::new(1).check(Request::new(pb::CheckRequest::default())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.get_error_details().bad_request().unwrap().field_violations.len(), 5);
    }
}
