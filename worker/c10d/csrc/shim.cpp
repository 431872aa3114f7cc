#include "guard.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/GradMode.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/torch.h>

namespace {

using shim::guard;
using shim::report;
using shim::tensor_of;

std::vector<at::Tensor> tensors_of(const c10d_tensor *tensors, size_t length) {
  std::vector<at::Tensor> result;
  result.reserve(length);
  for (size_t i = 0; i < length; ++i) {
    result.push_back(tensor_of(tensors[i]));
  }
  return result;
}

// Gloo throws where it fails. Of the backends here NCCL alone fails later, on a thread of its own, and remembers.
c10d::ErrorType error_of(c10d::ProcessGroup &group) {
  for (const auto &device : group.getDeviceTypes()) {
    if (device.type() == c10::DeviceType::CUDA) {
      return group.getBackend(device.type())->getError();
    }
  }
  return c10d::ErrorType::SUCCESS;
}

// The deadline is the group's: Gloo ends the work itself, with a message that says where it waited.
void finish(const c10::intrusive_ptr<c10d::Work> &work) {
  TORCH_CHECK(work->wait(), "the collective was aborted");
}

c10d::TCPStoreOptions store_options(uint16_t port, int64_t timeout_ms) {
  c10d::TCPStoreOptions options;
  options.port = port;
  options.waitWorkers = false;  // the process group waits for its ranks, with their names
  options.timeout = std::chrono::milliseconds(timeout_ms);
  return options;
}

// Bucket i holds parameters that get their gradients before those of bucket i + 1. Backward reaches the last
// parameters first, hence the reversal, as in DistributedDataParallel.
std::vector<std::vector<size_t>> buckets_of(const std::vector<at::Tensor> &params, int64_t first_bucket_bytes,
                                            int64_t bucket_bytes) {
  const std::vector<size_t> limits{static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_bytes)};
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(params, limits));
  std::reverse(buckets.begin(), buckets.end());
  return buckets;
}

void backward(c10d::Reducer &reducer, const at::Tensor &loss) {
  reducer.prepare_for_forward();
  // Without a search for unused parameters the outputs are not looked at.
  reducer.prepare_for_backward({});
  loss.backward();
}

// The Reducer reassigns its buckets once, after the first backward, by the order in which gradients came. With
// three ranks or more the bucket decides the order of summation, so a trial that was resumed would take
// its first step with other roundings than one that was not. A backward that gives every parameter a gradient of
// zero brings the reassignment forward to here, and makes it the same each time.
void fix_buckets(c10d::Reducer &reducer, const std::vector<at::Tensor> &params) {
  std::vector<at::Tensor> gradients;
  gradients.reserve(params.size());
  for (const auto &param : params) {
    gradients.push_back(param.grad());
    param.mutable_grad() = at::Tensor();
  }
  {
    const c10::AutoGradMode enabled(true);
    at::Tensor loss = at::zeros({}, params.front().options().requires_grad(false));
    for (const auto &param : params) {
      loss = loss + param.sum().to(loss.scalar_type()) * 0;
    }
    backward(reducer, loss);
  }
  reducer.rebuild_buckets();
  for (size_t i = 0; i < params.size(); ++i) {
    params[i].mutable_grad() = gradients[i];
  }
}

}  // namespace

c10d_status c10d_store_host(int32_t listen_fd, const char *host, uint16_t port, int64_t timeout_ms,
                            c10d_store **out, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    auto options = store_options(port, timeout_ms);
    options.isServer = true;
    options.masterListenFd = listen_fd;
    *out = new c10d_store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

c10d_status c10d_store_connect(const char *host, uint16_t port, int64_t timeout_ms, c10d_store **out, char *err,
                               size_t err_len) {
  return guard(err, err_len, [&] {
    *out = new c10d_store{c10::make_intrusive<c10d::TCPStore>(host, store_options(port, timeout_ms))};
  });
}

c10d_status c10d_store_free(c10d_store *store, char *err, size_t err_len) {
  return guard(err, err_len, [&] { delete store; });
}

c10d_status c10d_group_gloo(const c10d_store *store, const char *prefix, int32_t rank, int32_t world_size,
                            int64_t timeout_ms, const char *hostname, const char *interface, c10d_group **out,
                            char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(interface != nullptr
                                   ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                   : c10d::ProcessGroupGloo::createDeviceForHostname(hostname));
    c10::intrusive_ptr<c10d::Store> keys = c10::make_intrusive<c10d::PrefixStore>(prefix, store->store);
    auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(keys, rank, world_size, options);
    // ProcessGroup sends each tensor to the backend of its device; the Reducer needs one.
    auto group = c10::make_intrusive<c10d::ProcessGroup>(keys, rank, world_size);
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, backend);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    *out = new c10d_group{std::move(group)};
  });
}

c10d_status c10d_group_check(const c10d_group *group, char *err, size_t err_len) {
  c10d::ErrorType error = c10d::ErrorType::SUCCESS;
  const auto status = guard(err, err_len, [&] { error = error_of(*group->group); });
  if (status != C10D_OK) {
    return status;
  }
  switch (error) {
    case c10d::ErrorType::SUCCESS:
      return C10D_OK;
    case c10d::ErrorType::TIMEOUT:
      return report(C10D_TIMEOUT, "NCCL's watchdog ended a collective that took too long", err, err_len);
    case c10d::ErrorType::COMM_ERROR:
      return report(C10D_PEER_LOST, "NCCL's communicator failed; with NCCL_DEBUG=WARN its own words are in the log",
                    err, err_len);
    case c10d::ErrorType::REMOTE_ERROR:
      return report(C10D_PEER_LOST, "NCCL's communicator failed on another rank", err, err_len);
  }
  return report(C10D_OTHER, "NCCL failed in a way that this program has no name for", err, err_len);
}

c10d_status c10d_group_shutdown(c10d_group *group, char *err, size_t err_len) {
  return guard(err, err_len, [&] { group->group->shutdown(); });
}

c10d_status c10d_group_abort(c10d_group *group, char *err, size_t err_len) {
  return guard(err, err_len, [&] { group->group->abort(); });
}

c10d_status c10d_group_free(c10d_group *group, char *err, size_t err_len) {
  return guard(err, err_len, [&] { delete group; });
}

c10d_status c10d_all_reduce(const c10d_group *group, c10d_tensor tensor, c10d_reduce_op op, char *err,
                            size_t err_len) {
  return guard(err, err_len, [&] {
    const c10::AutoGradMode disabled(false);
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::AllreduceOptions options;
    // Gloo has no average: the sum is divided by the number of ranks.
    options.reduceOp = op == C10D_MAX ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    finish(group->group->allreduce(tensors, options));
    if (op == C10D_AVG) {
      tensors.front().div_(group->group->getSize());
    }
  });
}

c10d_status c10d_broadcast(const c10d_group *group, c10d_tensor tensor, int32_t root, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    finish(group->group->broadcast(tensors, options));
  });
}

c10d_status c10d_barrier(const c10d_group *group, char *err, size_t err_len) {
  return guard(err, err_len, [&] { finish(group->group->barrier()); });
}

c10d_status c10d_all_gather(const c10d_group *group, c10d_tensor tensor, const c10d_tensor *outputs,
                            size_t outputs_len, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    std::vector<at::Tensor> inputs{tensor_of(tensor)};
    std::vector<std::vector<at::Tensor>> gathered{tensors_of(outputs, outputs_len)};
    finish(group->group->allgather(gathered, inputs));
  });
}

c10d_status c10d_reducer_new(const c10d_group *group, const c10d_tensor *params, size_t params_len,
                             int64_t first_bucket_bytes, int64_t bucket_bytes, c10d_reducer **out, char *err,
                             size_t err_len) {
  return guard(err, err_len, [&] {
    const auto parameters = tensors_of(params, params_len);
    // Ranks with different models would otherwise wait for each other's buckets, or mix them up.
    c10d::verify_params_across_processes(group->group, parameters, std::nullopt);
    auto reducer = std::make_unique<c10d::Reducer>(
        parameters, buckets_of(parameters, first_bucket_bytes, bucket_bytes), group->group,
        std::vector<bool>(parameters.size(), false), bucket_bytes,
        /*find_unused_parameters=*/false,
        // tch's `zero_grad` detaches a gradient in place, which libtorch refuses for a view.
        /*gradient_as_bucket_view=*/false,
        /*param_names=*/std::unordered_map<size_t, std::string>{}, first_bucket_bytes,
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/std::vector<int64_t>{});
    fix_buckets(*reducer, parameters);
    *out = new c10d_reducer{group->group, std::move(reducer)};
  });
}

c10d_status c10d_reducer_backward(c10d_reducer *reducer, c10d_tensor loss, char *err, size_t err_len) {
  return guard(err, err_len, [&] { backward(*reducer->reducer, tensor_of(loss)); });
}

c10d_status c10d_reducer_free(c10d_reducer *reducer, char *err, size_t err_len) {
  return guard(err, err_len, [&] { delete reducer; });
}
