"""The spec of digits_cnn with each list on one line, for tests that put another text in the place of a list."""

DIGITS_SPEC = """task: classification

sources:
  # made by train.py
  - name: weights.pth
    sha256: 920ace16272109f037187999fefb187272f80a9b5c9afcd6d2c889e449c23459
    from: {path: weights.pth}
  - name: digits.csv.gz
    sha256: 09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22
    from: {wheel: scikit-learn==1.9.1, member: sklearn/datasets/data/digits.csv.gz}

dimensions:
  batch: {min: 1, max: 64, example: 2}
inputs:
  - {name: image, dtype: float32, shape: [batch, 1, 8, 8]}
outputs:
  - {name: logits, dtype: float32, shape: [batch, 10]}
labels: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

variants: [fp16, int8_dynamic, int8_static]
budget:                # what each of them may lose against PyTorch
  agreement: 0.86      # at least this share of the samples keeps PyTorch's answer
  sqnr_db: 19.5        # at least this signal to error, over all outputs
"""
