# The CUDA backend: the engine with it (needs nvcc, made by "make cuda"), and the same sources as ordinary C++ against
# test/emulation, for tests on machines without a GPU. Included by engine.mk.

CUDA_HOME ?= /usr/local/cuda
NVCC      ?= $(CUDA_HOME)/bin/nvcc
# Machine code for A100 and H100/H200, and PTX that later GPUs translate.
CUDA_ARCH ?= -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a \
             -gencode=arch=compute_80,code=compute_80

comma := ,

CUDA_KERNEL := $(wildcard kernels/*.cu)
CUDA_HEADER := $(wildcard kernels/*.h kernels/*.cuh)

# ---- programs with CUDA: the engine, and for a machine with a GPU the tests of kernels and the benchmark ----

CUDA_HOST_OBJ := $(CUDA_SRC:%.c=$(BUILD)/cuda/%.o)
CUDA_LIBS     := -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublasLt -lcudart_static -lstdc++ -ldl -lrt
NVCC_FLAGS    := -std=c++17 -O3 -lineinfo -Xptxas -v
CUDA_TESTS    := test_cuda test_cuda_group test_cuda_sample test_cuda_engine test_cuda_learning
GPU_BENCH_SRC := $(wildcard test/gpu/*.c test/gpu/*.h)

$(BUILD)/cuda/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -isystem $(CUDA_HOME)/include -c -o $@ $<

# cuda_programs FOLDER OF PROGRAMS, FOLDER OF KERNELS, MACHINE CODE. What ptxas says of registers and spills stays
# beside the object: see "make cuda-resources".
define cuda_programs
$(2)/%.o: %.cu $(CUDA_HEADER)
	@mkdir -p $$(@D)
	$(NVCC) $(NVCC_FLAGS) $(3) -c -o $$@ $$< > $$(@:.o=.ptxas) 2>&1 || { cat $$(@:.o=.ptxas) >&2; exit 1; }

$(1)/minimax_m1_engine_cuda: $(BUILD)/obj/src/commands/main.o $(CUDA_HOST_OBJ) $(CUDA_KERNEL:%.cu=$(2)/%.o) $(CORE_LIB)
	$(ENGINE_CC) -o $$@ $$^ $(CUDA_LIBS) $(ENGINE_LIBS)

$(CUDA_TESTS:%=$(1)/gpu/%): $(1)/gpu/%: test/unit/%.c $(CUDA_HOST_OBJ) $(CUDA_KERNEL:%.cu=$(2)/%.o) $(CORE_LIB)
	@mkdir -p $$(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(UNIT_CFLAGS) -isystem $(CUDA_HOME)/include -o $$@ $$^ -lcmocka $(CUDA_LIBS) \
	    $(ENGINE_LIBS)

$(1)/gpu/bench: $(GPU_BENCH_SRC) $(CUDA_HOST_OBJ) $(CUDA_KERNEL:%.cu=$(2)/%.o) $(CORE_LIB)
	@mkdir -p $$(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -isystem $(CUDA_HOME)/include -o $$@ $$(filter-out %.h,$$^) $(CUDA_LIBS) $(ENGINE_LIBS)
endef

cuda_names = $(1)/minimax_m1_engine_cuda $(CUDA_TESTS:%=$(1)/gpu/%) $(1)/gpu/bench

CUDA_ENGINE    := $(BUILD)/minimax_m1_engine_cuda
GPU_PROGRAMS   := $(call cuda_names,$(BUILD))
CUDA_RESOURCES := $(CUDA_KERNEL:%.cu=$(BUILD)/cuda/%.ptxas)
$(eval $(call cuda_programs,$(BUILD),$(BUILD)/cuda,$(CUDA_ARCH)))

# For test/gpu/bundle.sh, which is to be small.
HOPPER_PROGRAMS := $(call cuda_names,$(BUILD)/sm_90a)
$(eval $(call cuda_programs,$(BUILD)/sm_90a,$(BUILD)/sm_90a,-gencode=arch=compute_90a$(comma)code=sm_90a))

# ---- the same without a GPU ----

EMULATED_ENGINE := $(BUILD)/minimax_m1_engine_emulated
EMULATED_BENCH  := $(BUILD)/gpu/bench_emulated
EMULATED_TESTS  := $(CUDA_TESTS) test_emulation
EMULATION_SRC   := $(wildcard test/emulation/*.cpp)
EMULATED_OBJ    := $(CUDA_KERNEL:%.cu=$(BUILD)/emulated/%.o) $(CUDA_SRC:%.c=$(BUILD)/emulated/%.o) \
                   $(EMULATION_SRC:%.cpp=$(BUILD)/emulated/%.o)
EMULATED_CXX    := $(CXX) -std=c++17 -O2 $(DEBUG) -Itest/emulation -MMD -MP -Wall -Wextra -Wno-unknown-pragmas \
                   -DM1K_EMULATED $(SANITIZE) $(EXTRA_CFLAGS)

$(EMULATED_ENGINE): $(BUILD)/obj/src/commands/main.o $(EMULATED_OBJ) $(CORE_LIB)
	$(ENGINE_CC) $(SANITIZE) -o $@ $^ -lstdc++ $(ENGINE_LIBS)

$(EMULATED_BENCH): $(GPU_BENCH_SRC) $(EMULATED_OBJ) $(CORE_LIB)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -Itest/emulation -o $@ $(filter %.c,$^) $(EMULATED_OBJ) $(CORE_LIB) -lstdc++ \
	    $(ENGINE_LIBS)

$(BUILD)/emulated/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -Itest/emulation -c -o $@ $<

$(BUILD)/emulated/%.o: %.cu
	@mkdir -p $(@D)
	$(EMULATED_CXX) -x c++ -c -o $@ $<

$(BUILD)/emulated/%.o: %.cpp
	@mkdir -p $(@D)
	$(EMULATED_CXX) -c -o $@ $<

# It switches between the fibers of every emulated thread: see there.
$(BUILD)/emulated/test/emulation/fibers.o: EMULATED_CXX += -O2 -fno-sanitize=all

-include $(EMULATED_OBJ:.o=.d) $(patsubst %.c,$(BUILD)/cuda/%.d,$(CUDA_SRC))
