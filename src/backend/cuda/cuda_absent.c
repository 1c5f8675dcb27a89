/* cuda_absent.c - the CUDA backend of an engine that was built without it. */
#include "backend/backend.h"

bool
m1b_cuda_present(void)
{
	return false;
}

m1_status
m1b_cuda_open(const m1b_cuda_options *options, m1b_backend **out, m1_error *err)
{
	(void) options;
	*out = NULL;
	m1_fail(err, M1_E_DEVICE, "device \"cuda\" is not available");
	m1_error_detail(err, "This engine was built without CUDA.");
	m1_error_hint(err, "Set {device} to \"auto\" or \"cpu\".");
	return M1_E_DEVICE;
}
