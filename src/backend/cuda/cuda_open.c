/* cuda_open.c - which GPUs there are, and a backend on one or several of them. */
#include "backend/cuda/cuda_group.h"

static m1_status
no_device(cudaError_t error, m1_error *err)
{
	m1_fail(err, M1_E_DEVICE, "device \"cuda\" is not available");
	m1_error_detail(err, "No usable GPU was found: %s.",
					error != cudaSuccess ? cudaGetErrorString(error) : "the driver lists none");
	m1_error_hint(err, "Set {device} to \"auto\" or \"cpu\", or see what nvidia-smi reports.");
	return M1_E_DEVICE;
}

bool
m1b_cuda_present(void)
{
	int count = 0;

	return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

m1_status
m1b_cuda_open(const m1b_cuda_options *options, m1b_backend **out, m1_error *err)
{
	cudaError_t error;
	m1b_cuda *c;
	m1_status status;
	int count = 0;

	*out = NULL;
	error = cudaGetDeviceCount(&count);
	if (error != cudaSuccess || count == 0)
		return no_device(error, err);
	if (options->gpus > count)
	{
		m1_fail(err, M1_E_DEVICE, "%d GPUs are not available", options->gpus);
		m1_error_detail(err, "This machine has %d.", count);
		m1_error_hint(err, "Set {gpus} to at most %d, or see what nvidia-smi reports.", count);
		return M1_E_DEVICE;
	}
	if (options->gpus > 1)
		return m1b_cuda_group_open(options, out, err);
	if ((status = m1b_cuda_open_rank(options, 0, &c, err)) == M1_OK)
		*out = &c->base;
	return status;
}
