"""quantskew: see, check and use how quantization disparately skews a model.

Start at `quantskew.studies.experiments.audit` for a named experiment, `quantskew.audits.measure.audit_model`
for a model of your own, or `quantskew.audits.audit.Audit.from_logits` for logits from anywhere.

From the ground up: `base`, `quantization` and `datasets`; `derivatives` of the loss of each group, and
`measures` of what an Audit says; `learning` trains models, `quantization_aware` trains them on their grids;
`audits` run a model through the precisions, and `studies` do it for a question.  `claims` judge what was
found, `drawing` shows it; `interactive`, `pages` and `reports` bring it to the reader; `sweeps` do it all
over grids, and `commands` do it from a shell.
"""
