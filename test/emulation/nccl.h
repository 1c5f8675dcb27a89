/*
 * nccl.h - the part of NCCL that the CUDA backend uses, among emulated devices of one
 * process with a thread for each: sums and gathers that happen once every rank's stream
 * has come to them. Found instead of the real header in tests without a GPU.
 */
#ifndef EMULATED_NCCL_H
#define EMULATED_NCCL_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ncclResult_t
{
	ncclSuccess = 0,
	ncclUnhandledCudaError = 1,
	ncclSystemError = 2,
	ncclInvalidArgument = 4,
	ncclInvalidUsage = 5,
	ncclRemoteError = 6,
	ncclInProgress = 7,
} ncclResult_t;

typedef enum ncclDataType_t
{
	ncclFloat32 = 7,
} ncclDataType_t;

typedef enum ncclRedOp_t
{
	ncclSum = 0,
} ncclRedOp_t;

typedef struct ncclComm *ncclComm_t;

const char *ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclCommInitAll(ncclComm_t *comms, int n, const int *devices);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
/* Ends what waits on the rank's stream, too, with garbage as the result. */
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error);
ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
						   ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm,
						   cudaStream_t stream);

/* The emulation's own: from now on nothing is completed, and every communicator reports the error. */
void emulated_break_nccl(ncclResult_t error);

#ifdef __cplusplus
}
#endif

#endif
