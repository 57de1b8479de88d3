"""How well `brain-structures-mr` adapts to other labels: few people, scribbles, people without labels.

python -m benchmarks.bundles.adapting prepare --data DIR/hippocampus_mr -o hippocampus.npz
python -m benchmarks.bundles.adapting run hippocampus.npz -o runs/adapting --minutes 8 --parallel 20
python -m benchmarks.bundles.adapting table runs/adapting/rows.json
python -m benchmarks.bundles.adapting cpu --data DIR/hippocampus_mr --minutes 10
"""
