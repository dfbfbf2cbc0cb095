"""quantskew: see, check and use how quantization disparately skews a model.

Start at `quantskew.experiments.audit` for a named experiment, `quantskew.measure.audit_model` for a model
of your own, or `quantskew.audit.Audit.from_logits` for logits from anywhere.
"""
