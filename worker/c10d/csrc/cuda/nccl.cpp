#include "shim_nccl.h"

#include "../guard.hpp"

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include <nccl.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <torch/version.h>

namespace {

using shim::guard;

// NCCL waits without a limit for ranks that have not come. Here they have all come, or the store says who has not.
void meet(c10d::Store &store, int rank, int world_size, std::chrono::milliseconds timeout) {
  std::vector<std::string> everybody;
  for (int other = 0; other < world_size; ++other) {
    everybody.push_back("here/" + std::to_string(other));
  }
  store.set(everybody[static_cast<size_t>(rank)], std::vector<uint8_t>{1});
  store.wait(everybody, timeout);
}

}  // namespace

int32_t credence_nccl_abi(void) { return C10D_ABI; }

const char *credence_nccl_torch_version(void) {
  static const std::string version = std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) +
                                     "." + std::to_string(TORCH_VERSION_PATCH);
  return version.c_str();
}

c10d_status credence_nccl_version(int32_t *out, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    int version = 0;
    TORCH_CHECK(ncclGetVersion(&version) == ncclSuccess, "NCCL does not tell its version");
    *out = version;
  });
}

c10d_status credence_nccl_attach(c10d_group *group, const c10d_store *store, const credence_nccl_options *options,
                                 char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    if (options->host_id != nullptr) {
      // NCCL reads it when it makes a communicator. The threads that run by now do not read the environment.
      setenv("NCCL_HOSTID", options->host_id, /*overwrite=*/1);
    }
    const std::chrono::milliseconds timeout(options->timeout_ms);
    auto nccl = c10d::ProcessGroupNCCL::Options::create(options->high_priority != 0);
    nccl->timeout = timeout;
    c10::intrusive_ptr<c10d::Store> keys =
        c10::make_intrusive<c10d::PrefixStore>(std::string(options->prefix) + "/nccl", store->store);
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(keys, options->rank, options->world_size, nccl);
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(options->device));
    group->group->setBackend(device.type(), c10d::ProcessGroup::BackendType::NCCL, backend);
    backend->setBoundDeviceId(device);
    meet(*keys, options->rank, options->world_size, timeout);
    // The communicator now and not with the first collective: a network that does not work fails the joining.
    backend->eagerConnectSingleDevice(device);
  });
}
