// What the parts of the shim share: the objects behind the handles, and the one way out for exceptions.
//
// The CUDA half is compiled into a library of its own and is handed objects of this one, so a change here
// raises C10D_ABI in shim.h.
#pragma once

#include "shim.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string_view>

#include <gloo/common/error.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/exception.h>
#include <torch/csrc/distributed/c10d/reducer.hpp>

struct c10d_store {
  c10::intrusive_ptr<c10d::Store> store;
};

struct c10d_group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

struct c10d_reducer {
  // Before `reducer`, so that it is destroyed after it.
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unique_ptr<c10d::Reducer> reducer;
};

namespace shim {

inline c10d_status report(c10d_status status, const char *message, char *err, size_t err_len) noexcept {
  if (err != nullptr && err_len > 0) {
    const size_t length = std::min(std::strlen(message), err_len - 1);
    std::memcpy(err, message, length);
    err[length] = '\0';
  }
  return status;
}

inline bool mentions(std::string_view message, std::initializer_list<std::string_view> phrases) {
  return std::any_of(phrases.begin(), phrases.end(),
                     [&](std::string_view phrase) { return message.find(phrase) != std::string_view::npos; });
}

// Gloo and the store throw the same types for both causes, so the words have to decide between them.
inline bool is_timeout(std::string_view message) {
  return mentions(message, {"imed out", "imeout"});
}

inline c10d_status connection_status(std::string_view message) {
  return is_timeout(message) ? C10D_TIMEOUT : C10D_PEER_LOST;
}

// Some paths of Gloo throw plain std::runtime_error for a broken connection.
inline c10d_status plain_status(std::string_view message) {
  if (mentions(message, {"Connection closed by peer", "Connection reset by peer", "Broken pipe", "onnection refused"})) {
    return C10D_PEER_LOST;
  }
  return mentions(message, {"Timed out waiting", "Connect timeout", "timeout caused pair closure"}) ? C10D_TIMEOUT
                                                                                                   : C10D_OTHER;
}

// Runs `body`, and turns whatever it throws into a status and a message.
template <class F>
c10d_status guard(char *err, size_t err_len, F &&body) noexcept {
  try {
    body();
    return C10D_OK;
  } catch (const c10d::TimeoutError &e) {
    return report(C10D_TIMEOUT, e.what_without_backtrace(), err, err_len);
  } catch (const c10::DistNetworkError &e) {
    return report(connection_status(e.what_without_backtrace()), e.what_without_backtrace(), err, err_len);
  } catch (const c10::DistStoreError &e) {
    return report(connection_status(e.what_without_backtrace()), e.what_without_backtrace(), err, err_len);
  } catch (const gloo::IoException &e) {
    return report(connection_status(e.what()), e.what(), err, err_len);
  } catch (const c10::Error &e) {
    return report(plain_status(e.what_without_backtrace()), e.what_without_backtrace(), err, err_len);
  } catch (const std::exception &e) {
    return report(plain_status(e.what()), e.what(), err, err_len);
  } catch (...) {
    return report(C10D_OTHER, "unknown C++ exception", err, err_len);
  }
}

inline at::Tensor &tensor_of(c10d_tensor tensor) { return *static_cast<at::Tensor *>(tensor); }

}  // namespace shim
