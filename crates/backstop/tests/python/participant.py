"""An ordinary gRPC service in Python: grpcio, its own proto, server reflection. No code of Backstop's.

Writes each call that it takes as a line of JSON into DIRECTORY/calls.jsonl, and prints where it listens.
Usage: participant.py DIRECTORY
"""

import base64
import json
import pathlib
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

protos, services = grpc.protos_and_services("policy.proto")

CALLS = pathlib.Path(sys.argv[1]) / "calls.jsonl"
WRITING = threading.Lock()


def write_down(method, request, context):
    def text(value):
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    metadata = {key: text(value) for key, value in context.invocation_metadata()}
    call = {
        "method": method,
        "metadata": metadata,
        "request": json_format.MessageToDict(request),
        "deadline_seconds": context.time_remaining(),
    }
    with WRITING, CALLS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(call) + "\n")
    return metadata


def packed(message):
    any_message = any_pb2.Any()
    any_message.Pack(message)
    return any_message


class Policies(services.PolicyServiceServicer):
    def Quote(self, request, context):
        metadata = write_down("Quote", request, context)
        return protos.QuoteReply(quote_id="q-" + metadata["backstop-saga-id"], premium=request.sum_insured)

    def Bind(self, request, context):
        write_down("Bind", request, context)
        if request.premium == 13:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field="premium", description="13 brings bad luck"
            )
            status = status_pb2.Status(
                code=code_pb2.INVALID_ARGUMENT,
                message="premium not acceptable",
                details=[
                    packed(error_details_pb2.BadRequest(field_violations=[violation])),
                    packed(error_details_pb2.LocalizedMessage(locale="zh-CN", message="不吉利")),
                ],
            )
            context.abort_with_status(rpc_status.to_status(status))
        return protos.BindReply(policy_id="p-1")

    def Withdraw(self, request, context):
        write_down("Withdraw", request, context)
        return protos.WithdrawReply()


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_PolicyServiceServicer_to_server(Policies(), server)
    names = (protos.DESCRIPTOR.services_by_name["PolicyService"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


main()
