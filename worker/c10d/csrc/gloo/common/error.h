// Stands in for a header of Gloo; see README.md.
#pragma once

#include <stdexcept>
#include <string>

namespace gloo {

// Bases and names as in Gloo: a handler matches a thrown object by its mangled type name.
struct Exception : public std::runtime_error {
  explicit Exception(const std::string &message) : std::runtime_error(message) {}
};

struct IoException : public Exception {
  explicit IoException(const std::string &message) : Exception(message) {}
};

}  // namespace gloo
