"""The network's operators with static shapes, for torch.compile, CUDA graphs and static engines."""
