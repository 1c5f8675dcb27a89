/*
 * cuda_error.c - failures of the device: the first one is kept, with what was being done,
 * until somebody asks for it.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdarg.h>
#include <stdio.h>

void
m1b_cuda_note(m1b_cuda *c, cudaError_t error, const char *doing)
{
	if (error == cudaSuccess || m1b_cuda_failed(c))
		return;
	c->failure.error = error;
	c->failure.doing = doing;
}

void
m1b_cuda_note_library(m1b_cuda *c, const char *library, cudaError_t error, const char *doing, const char *format, ...)
{
	va_list arguments;

	if (m1b_cuda_failed(c))
		return;
	m1b_cuda_note(c, error, doing);
	c->failure.library = library;
	va_start(arguments, format);
	vsnprintf(c->failure.says, sizeof c->failure.says, format, arguments);
	va_end(arguments);
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

/* Without a detail. */
static m1_status
fail(const char *what, cudaError_t error, const char *doing, m1_error *err)
{
	const m1_status code = error == cudaErrorMemoryAllocation ? M1_E_NO_MEMORY : M1_E_DEVICE;

	m1_fail(err, code, "%s failed while %s", what, doing);
	if (code == M1_E_NO_MEMORY)
		m1_error_hint(err, "Lower {max_context} or {max_requests}, or see what else uses the device.");
	return code;
}

m1_status
m1b_cuda_error(cudaError_t error, const char *doing, m1_error *err)
{
	const m1_status code = fail("CUDA", error, doing, err);

	cudaGetLastError(); /* it has been told: what is launched next is not to blame */
	m1_error_detail(err, "%s: %s.", cudaGetErrorName(error), cudaGetErrorString(error));
	return code;
}

m1_status
m1b_cuda_status(const m1b_cuda *c, m1_error *err)
{
	const m1b_cuda_failure *f = &c->failure;
	m1_status code;

	if (!m1b_cuda_failed(c))
		return M1_OK;
	if (f->library == NULL)
		return m1b_cuda_error(f->error, f->doing, err);
	code = fail(f->library, f->error, f->doing, err);
	m1_error_detail(err, "%s.", f->says);
	return code;
}
