// Prunes a model on a running service and tells what became of it, with nothing but the .proto files:
//   secateur_client HOST:PORT JOB_ID MODEL CALIBRATION OUTPUT
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "secateur/v1/pruning_service.grpc.pb.h"

namespace {

using secateur::v1::PruningService;

constexpr std::chrono::seconds kCallTimeout{30};
constexpr std::chrono::hours kWatchTimeout{1};
constexpr int kMaximumMessageBytes = 16 << 20;

// Every call needs a deadline; the service refuses those without one.
std::unique_ptr<grpc::ClientContext> with_deadline(std::chrono::system_clock::duration timeout) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + timeout);
  return context;
}

void check(const grpc::Status& status, const std::string& call) {
  if (!status.ok()) {
    throw std::runtime_error(call + " failed with code " + std::to_string(status.error_code()) + ": " + status.error_message());
  }
}

// An id and a spec that exist already give the job that exists, so this may be repeated.
void create_job(PruningService::Stub& service, char** argv) {
  secateur::v1::CreateJobRequest request;
  request.set_job_id(argv[2]);
  auto& prune = *request.mutable_spec()->mutable_prune();
  prune.set_model(argv[3]);
  prune.mutable_calibration()->set_path(argv[4]);
  prune.set_output(argv[5]);
  prune.set_sparsity(0.7);
  secateur::v1::CreateJobResponse response;
  check(service.CreateJob(with_deadline(kCallTimeout).get(), request, &response), "CreateJob");
}

// Events have numbers, so that one whose connection breaks can go on after the last.
void watch_job(PruningService::Stub& service, const std::string& job_id) {
  secateur::v1::WatchJobRequest request;
  request.set_job_id(job_id);
  const auto context = with_deadline(kWatchTimeout);
  const auto reader = service.WatchJob(context.get(), request);
  for (secateur::v1::WatchJobResponse response; reader->Read(&response);) {
    const auto& event = response.event();
    if (event.has_layer_finished()) std::cout << "layer " << event.layer_finished().layer() << " is pruned\n";
    if (event.has_state_changed()) std::cout << secateur::v1::JobState_Name(event.state_changed().state()) << '\n';
  }
  check(reader->Finish(), "WatchJob");
}

void print_report(PruningService::Stub& service, const std::string& job_id) {
  secateur::v1::GetReportRequest request;
  request.set_job_id(job_id);
  secateur::v1::GetReportResponse response;
  check(service.GetReport(with_deadline(kCallTimeout).get(), request, &response), "GetReport");
  std::cout << "sparsity " << response.prune().actual_sparsity() << '\n';
}

void list_jobs(PruningService::Stub& service) {
  secateur::v1::ListJobsResponse response;
  check(service.ListJobs(with_deadline(kCallTimeout).get(), {}, &response), "ListJobs");
  for (const auto& job : response.jobs()) std::cout << "job " << job.id() << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: secateur_client HOST:PORT JOB_ID MODEL CALIBRATION OUTPUT\n";
    return 2;
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaximumMessageBytes);
  const auto service = PruningService::NewStub(grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments));
  try {
    create_job(*service, argv);
    watch_job(*service, argv[2]);
    print_report(*service, argv[2]);
    list_jobs(*service);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
