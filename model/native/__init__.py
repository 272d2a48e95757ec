"""The network's operators with static shapes, for torch.compile, CUDA graphs and static engines.

level_rule: the smallest RoI area of each pyramid level
operators: pooling and NMS without data-dependent shapes
options: limits on NMS iterations, block sizes and RoI samples
pooling: `pyramid_pool` by one sampling of all levels
"""
