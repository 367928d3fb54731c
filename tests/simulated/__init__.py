"""A simulated GPU: tensors that say `cuda:0` and hold their data in host memory.

Nothing computes faster here. The simulation shows where tensors lie and when the host waits:

- operations on tensors of two devices raise, as they do on CUDA;
- waits for the device, launches and bytes in use are counted (`state.py`);
- it runs out of memory above a capacity, and fails for good after a device-side error, on request.

`guard.cpp` registers the device, `tensor.py` routes operations, `cuda.py` stands in for `torch.cuda`. A process has the
device when it starts with the variables of `build.environment`. Decision 0038 says what the simulation cannot show.
"""
