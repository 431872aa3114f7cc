// Stands in for a header of Gloo; see README.md.
#pragma once
