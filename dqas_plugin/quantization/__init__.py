"""Dataset quantization: bins of samples, and images of which only the informative patches are kept.

After Zhou et al., "Dataset Quantization", ICCV 2023 (DQ), and Zhao et al., ECCV 2024 (DQAS).
"""
