/*
 * cuda_error.c - failures of the device: the first one is kept, with what was being done,
 * until somebody asks for it.
 */
#include "backend/cuda/cuda_internal.h"

void
m1b_cuda_note(m1b_cuda *c, cudaError_t error, const char *doing)
{
	if (error == cudaSuccess || m1b_cuda_failed(c))
		return;
	c->failure.error = error;
	c->failure.doing = doing;
}

bool
m1b_cuda_failed(const m1b_cuda *c)
{
	return c->failure.error != cudaSuccess;
}

void
m1b_cuda_launched(m1b_cuda *c, const char *doing)
{
	m1b_cuda_note(c, cudaGetLastError(), doing);
}

m1_status
m1b_cuda_error(cudaError_t error, const char *doing, m1_error *err)
{
	const m1_status code = error == cudaErrorMemoryAllocation ? M1_E_NO_MEMORY : M1_E_DEVICE;

	cudaGetLastError(); /* it has been told: what is launched next is not to blame */
	m1_fail(err, code, "CUDA failed while %s", doing);
	m1_error_detail(err, "%s: %s.", cudaGetErrorName(error), cudaGetErrorString(error));
	if (code == M1_E_NO_MEMORY)
		m1_error_hint(err, "Lower {max_context} or {max_requests}, or see what else uses the device.");
	return code;
}

m1_status
m1b_cuda_status(const m1b_cuda *c, m1_error *err)
{
	if (!m1b_cuda_failed(c))
		return M1_OK;
	if (c->failure.nccl_says == NULL)
		return m1b_cuda_error(c->failure.error, c->failure.doing, err);
	m1_fail(err, M1_E_DEVICE, "NCCL failed while %s", c->failure.doing);
	m1_error_detail(err, "%s.", c->failure.nccl_says);
	return M1_E_DEVICE;
}
