"""The mitigations that synthetic images must beat: a file per kind of choice, a class per choice.

A file of conf/mitigation names one class of each kind: which rows an epoch draws (`sampling`), how
the losses of a batch become one (`losses`), who has a last layer of their own (`heads`), and what
follows the training (`after`, `last_layer`, `thresholds`). Nobody asks which one it is: a class of
a user's own module does as well. Groups are those of `cmrdata.subjects`; a domain is a group
without its diagnosis.
"""
