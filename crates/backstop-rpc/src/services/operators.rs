//! `backstop.v1.OperatorService`.

use super::overview::wire_overview;
use super::{PERSON_BYTES_MAX, REASON_BYTES_MAX, not_done, person_text, reach, saga_id};
use crate::convert::saga::wire_saga;
use crate::convert::time::wire_timestamp;
use crate::status_reply::{Reply, engine_error, invalid, saga_error};
use crate::wire_failure::wire_tier;
use backstop_core::{
    Code, Effect, ErrorTable, Evidence, Fault, Input, Resolution, RetryRule, SagaId, StepName, effect, tier,
};
use backstop_engine::ports::store::MisfitKind;
use backstop_engine::{Coordinator, FindingKind, HowMuch, Reach};
use backstop_proto::v1;
use backstop_proto::v1::operator_service_server::OperatorService;
use backstop_proto::v1::run_doctor_response::finding::Kind;
use tonic::{Request, Response, Status};

/// Journals that the doctor replays unless told otherwise.
const SAMPLE_DEFAULT: usize = 1_000;

/// The service.
#[derive(Clone)]
pub struct Operators {
    coordinator: Coordinator,
}

impl Operators {
    /// The service over a coordinator.
    #[must_use]
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    /// The saga as it stands after a command.
    async fn commanded(&self, id: &SagaId, input: Input, reach: Reach) -> Result<v1::Saga, Status> {
        match self.coordinator.command(id, input, reach).await {
            Ok(saga) => Ok(wire_saga(&saga)),
            Err(error) => Err(not_done(&self.coordinator, id, &error).await),
        }
    }
}

fn step_and_person(step: &str, by: &str, reason: &str, mut faults: Vec<Fault>) -> Result<StepName, Status> {
    let step = StepName::parse(step).map_err(|error| faults.push(Fault::new("step", error.to_string())));
    person_text("by", by, PERSON_BYTES_MAX, true, &mut faults);
    person_text("reason", reason, REASON_BYTES_MAX, true, &mut faults);
    step.ok().filter(|_| faults.is_empty()).ok_or_else(|| invalid(&faults))
}

fn resolution(wire: i32) -> Result<Resolution, Fault> {
    match v1::Resolution::try_from(wire) {
        Ok(v1::Resolution::TookEffect) => Ok(Resolution::TookEffect),
        Ok(v1::Resolution::NoEffect) => Ok(Resolution::NoEffect),
        Ok(v1::Resolution::Undone) => Ok(Resolution::Undone),
        Ok(v1::Resolution::Unspecified) | Err(_) => {
            Err(Fault::new("resolution", "must be TOOK_EFFECT, NO_EFFECT or UNDONE"))
        }
    }
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn retry_branch(
        &self,
        request: Request<v1::RetryBranchRequest>,
    ) -> Result<Response<v1::RetryBranchResponse>, Status> {
        let reach = reach(request.metadata());
        let v1::RetryBranchRequest { saga_id: id, step, by, reason } = request.into_inner();
        let id = saga_id(&id)?;
        let step = step_and_person(&step, &by, &reason, Vec::new())?;
        let saga = self.commanded(&id, Input::RetryBranch { step, by, reason }, reach).await?;
        Ok(Response::new(v1::RetryBranchResponse { saga: Some(saga) }))
    }

    async fn resolve_branch(
        &self,
        request: Request<v1::ResolveBranchRequest>,
    ) -> Result<Response<v1::ResolveBranchResponse>, Status> {
        let reach = reach(request.metadata());
        let v1::ResolveBranchRequest { saga_id: id, step, by, reason, resolution: wire } =
            request.into_inner();
        let id = saga_id(&id)?;
        let resolution = resolution(wire);
        let faults = resolution.as_ref().err().cloned().into_iter().collect();
        let step = step_and_person(&step, &by, &reason, faults)?;
        let resolution = resolution.map_err(|fault| invalid(&[fault]))?;
        let input = Input::ResolveBranch { step, by, reason, resolution };
        let saga = self.commanded(&id, input, reach).await?;
        Ok(Response::new(v1::ResolveBranchResponse { saga: Some(saga) }))
    }

    async fn list_coordinators(
        &self,
        _request: Request<v1::ListCoordinatorsRequest>,
    ) -> Result<Response<v1::ListCoordinatorsResponse>, Status> {
        let rows = self.coordinator.coordinators().await.map_err(|error| engine_error(&error))?;
        let coordinators = rows.into_iter().map(|row| v1::list_coordinators_response::Coordinator {
            id: row.coordinator.to_string(),
            address: row.address,
            start_time: Some(wire_timestamp(row.started_at)),
            lease_expire_time: Some(wire_timestamp(row.expires_at)),
            expired: row.expired,
            draining: row.draining,
        });
        Ok(Response::new(v1::ListCoordinatorsResponse { coordinators: coordinators.collect() }))
    }

    async fn get_error_table(
        &self,
        request: Request<v1::GetErrorTableRequest>,
    ) -> Result<Response<v1::GetErrorTableResponse>, Status> {
        let domain = request.into_inner().domain;
        let table = self.coordinator.settings().error_table(&domain).ok_or_else(|| {
            Reply::new(tonic::Code::NotFound, "NOT_FOUND")
                .status(format!("there is no error domain \"{domain}\""))
        })?;
        let default = ErrorTable::default();
        let said = Code::ALL.into_iter().filter(|code| *code != Code::Ok);
        let rows = said.map(|code| {
            let row = tier(&table, code);
            let effect = match effect(Evidence::ParticipantSaid(code)) {
                Effect::None => v1::failure::Effect::None,
                Effect::InDoubt => v1::failure::Effect::InDoubt,
            };
            v1::get_error_table_response::Row {
                grpc_code: code.name().to_owned(),
                effect: effect.into(),
                fin_code: row.fin_code.to_string(),
                tier: wire_tier(row.tier).into(),
                http_status: i32::from(row.http_status),
                retried: row.retry == RetryRule::Policy,
                overridden: row != tier(&default, code),
            }
        });
        let rows = rows.collect();
        Ok(Response::new(v1::GetErrorTableResponse { domain, rows }))
    }

    async fn run_doctor(
        &self,
        request: Request<v1::RunDoctorRequest>,
    ) -> Result<Response<v1::RunDoctorResponse>, Status> {
        let v1::RunDoctorRequest { full, sample } = request.into_inner();
        let sample = usize::try_from(sample)
            .map_err(|_| invalid(&[Fault::new("sample", format!("must not be negative, is {sample}"))]))?;
        let how_much = match (full, sample) {
            (true, _) => HowMuch::Everything,
            (false, 0) => HowMuch::Newest(SAMPLE_DEFAULT),
            (false, sample) => HowMuch::Newest(sample),
        };
        let found = self.coordinator.examine(how_much).await.map_err(|error| engine_error(&error))?;
        let findings = found.findings.into_iter().map(|finding| v1::run_doctor_response::Finding {
            kind: kind(finding.kind).into(),
            subject: finding.subject,
            detail: finding.detail,
        });
        Ok(Response::new(v1::RunDoctorResponse {
            findings: findings.collect(),
            journals_replayed: found.journals_replayed,
            truncated: found.is_cut,
        }))
    }

    async fn release_saga(
        &self,
        request: Request<v1::ReleaseSagaRequest>,
    ) -> Result<Response<v1::ReleaseSagaResponse>, Status> {
        let v1::ReleaseSagaRequest { saga_id: id, by, reason } = request.into_inner();
        let id = saga_id(&id)?;
        let mut faults = Vec::new();
        person_text("by", &by, PERSON_BYTES_MAX, true, &mut faults);
        person_text("reason", &reason, REASON_BYTES_MAX, true, &mut faults);
        if !faults.is_empty() {
            return Err(invalid(&faults));
        }
        let saga = self.coordinator.release_saga(&id, &by, &reason).await;
        let saga = saga.map_err(|error| saga_error(&error, &id, None))?;
        Ok(Response::new(v1::ReleaseSagaResponse { saga: Some(wire_saga(&saga)) }))
    }

    async fn get_overview(
        &self,
        _request: Request<v1::GetOverviewRequest>,
    ) -> Result<Response<v1::GetOverviewResponse>, Status> {
        Ok(Response::new(wire_overview(self.coordinator.overview())))
    }
}

fn kind(kind: FindingKind) -> Kind {
    match kind {
        FindingKind::Misfit(MisfitKind::Forsaken) => Kind::SagaForsaken,
        FindingKind::Misfit(MisfitKind::Overdetermined) => Kind::SagaOverdetermined,
        FindingKind::Misfit(MisfitKind::OwnerGone) => Kind::OwnerGone,
        FindingKind::Misfit(MisfitKind::Overslept) => Kind::SagaOverslept,
        FindingKind::Misfit(MisfitKind::WithoutHead) => Kind::EventsWithoutSaga,
        FindingKind::Misfit(MisfitKind::Lease) => Kind::LeaseTooLong,
        FindingKind::Misfit(MisfitKind::Schema) => Kind::Schema,
        FindingKind::JournalBroken => Kind::JournalBroken,
        FindingKind::HeadDiffers => Kind::HeadDiffers,
        FindingKind::Quarantined => Kind::SagaQuarantined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_kind_has_one_name_on_the_wire_and_in_metrics() {
        let names: BTreeSet<&str> = FindingKind::ALL.into_iter().map(FindingKind::as_str).collect();
        let wire = (1..).map_while(|number| Kind::try_from(number).ok());
        let wire: BTreeSet<String> =
            wire.map(|kind| kind.as_str_name().trim_start_matches("KIND_").to_lowercase()).collect();
        assert_eq!(names, wire.iter().map(String::as_str).collect());
        for kind_ in FindingKind::ALL {
            let name = kind(kind_).as_str_name().trim_start_matches("KIND_").to_lowercase();
            assert_eq!(kind_.as_str(), name);
        }
    }
}
