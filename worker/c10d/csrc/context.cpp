// libtorch's settings, and what is asked of devices. Everything here is in `libtorch_cpu.so`, which knows CUDA by
// interfaces that `libtorch_cuda.so` implements: so it compiles and loads without CUDA.
#include "guard.hpp"

#include <vector>

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/stack.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <torch/version.h>

namespace {

using shim::guard;
using shim::tensor_of;

c10::DeviceType device_type(c10d_device_type device) {
  return device == C10D_CUDA ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
}

c10d_autocast autocast_of(c10::DeviceType device) {
  if (!at::autocast::is_autocast_enabled(device)) {
    return C10D_FULL;
  }
  return at::autocast::get_autocast_dtype(device) == at::kHalf ? C10D_FLOAT16 : C10D_BFLOAT16;
}

void set_autocast(c10::DeviceType device, c10d_autocast precision) {
  at::autocast::set_autocast_enabled(device, precision != C10D_FULL);
  if (precision != C10D_FULL) {
    at::autocast::set_autocast_dtype(device, precision == C10D_FLOAT16 ? at::kHalf : at::kBFloat16);
  }
}

c10::DeviceAllocator &cuda_allocator() {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return *c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

std::vector<at::Tensor> tensors_of(const c10d_tensor *tensors, size_t length) {
  std::vector<at::Tensor> result;
  for (size_t i = 0; tensors != nullptr && i < length; ++i) {
    result.push_back(tensor_of(tensors[i]));
  }
  return result;
}

}  // namespace

const char *c10d_torch_version(void) {
  static const std::string version = std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) +
                                     "." + std::to_string(TORCH_VERSION_PATCH);
  return version.c_str();
}

int32_t c10d_has_cuda_kernels(void) {
  const auto add = c10::Dispatcher::singleton().findSchema({"aten::add", "Tensor"});
  return add && add->hasKernelForDispatchKey(c10::DispatchKey::CUDA) ? 1 : 0;
}

c10d_status c10d_cuda_init(char *err, size_t err_len) {
  return guard(err, err_len, [&] { at::globalContext().lazyInitDevice(c10::DeviceType::CUDA); });
}

c10d_status c10d_settings_set(c10d_settings settings, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    auto &context = at::globalContext();
    context.setAllowTF32CuBLAS(settings.tf32 != 0);
    context.setAllowTF32CuDNN(settings.tf32 != 0);
    context.setBenchmarkCuDNN(settings.benchmark != 0);
    context.setDeterministicAlgorithms(settings.deterministic != 0, /*warn_only=*/false);
    context.setDeterministicCuDNN(settings.deterministic != 0);
    // It would fill every new tensor, to make reads of uninitialised memory repeatable; nothing here reads any.
    context.setDeterministicFillUninitializedMemory(false);
    // Sums of half-precision products are kept in single precision, which is what mixed precision promises.
    context.setAllowFP16ReductionCuBLAS(/*allow_reduced_precision=*/false);
    context.setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  });
}

c10d_settings c10d_settings_get(void) {
  const auto &context = at::globalContext();
  c10d_settings settings{};
  settings.tf32 = context.allowTF32CuBLAS() && at::globalContext().allowTF32CuDNN() ? 1 : 0;
  settings.benchmark = context.benchmarkCuDNN() ? 1 : 0;
  settings.deterministic = context.deterministicAlgorithms() && context.deterministicCuDNN() ? 1 : 0;
  return settings;
}

c10d_autocast c10d_autocast_enter(c10d_device_type device, c10d_autocast precision) {
  const auto type = device_type(device);
  const auto before = autocast_of(type);
  at::autocast::increment_nesting();
  set_autocast(type, precision);
  return before;
}

void c10d_autocast_leave(c10d_device_type device, c10d_autocast before) {
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
  set_autocast(device_type(device), before);
}

c10d_status c10d_cuda_limit_memory(double share, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    c10::CachingAllocator::setAllocatorSettings("per_process_memory_fraction:" + std::to_string(share));
  });
}

c10d_status c10d_cuda_memory(int32_t device, c10d_memory *out, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    auto &allocator = cuda_allocator();
    const auto index = static_cast<c10::DeviceIndex>(device);
    const auto stats = allocator.getDeviceStats(index);
    const auto [free, total] = allocator.getMemoryInfo(index);
    out->allocated_peak = stats.allocated_bytes[all].peak;
    out->reserved_peak = stats.reserved_bytes[all].peak;
    out->free = static_cast<int64_t>(free);
    out->total = static_cast<int64_t>(total);
  });
}

c10d_status c10d_cuda_forget_peak(int32_t device, char *err, size_t err_len) {
  return guard(err, err_len, [&] { cuda_allocator().resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

c10d_status c10d_channels_last(c10d_tensor tensor, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    const c10::AutoGradMode disabled(false);
    auto &target = tensor_of(tensor);
    if (target.dim() == 4) {
      target.set_data(target.detach().contiguous(at::MemoryFormat::ChannelsLast));
    }
  });
}

c10d_status c10d_fused_sgd(const c10d_tensor *params, const c10d_tensor *grads, const c10d_tensor *momentum,
                           size_t length, c10d_sgd settings, c10d_tensor found_inf, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    const c10::AutoGradMode disabled(false);
    std::optional<at::Tensor> stop;
    if (found_inf != nullptr) {
      stop = tensor_of(found_inf);
    }
    at::_fused_sgd_(tensors_of(params, length), tensors_of(grads, length), tensors_of(momentum, length),
                    settings.weight_decay, settings.momentum, settings.lr, /*dampening=*/0.0, settings.nesterov != 0,
                    /*maximize=*/false, settings.is_first_step != 0, /*grad_scale=*/std::nullopt, stop);
  });
}

c10d_status c10d_fused_zero(const c10d_tensor *tensors, size_t length, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    const c10::AutoGradMode disabled(false);
    at::_foreach_zero_(tensors_of(tensors, length));
  });
}

c10d_status c10d_fused_multiply(const c10d_tensor *tensors, size_t length, c10d_tensor factor, char *err,
                                size_t err_len) {
  return guard(err, err_len, [&] {
    const c10::AutoGradMode disabled(false);
    at::_foreach_mul_(tensors_of(tensors, length), tensor_of(factor));
  });
}

c10d_status c10d_fused_norm(const c10d_tensor *tensors, size_t length, c10d_tensor out, char *err, size_t err_len) {
  return guard(err, err_len, [&] {
    const c10::AutoGradMode disabled(false);
    tensor_of(out).copy_(at::stack(at::_foreach_norm(tensors_of(tensors, length))).norm());
  });
}
