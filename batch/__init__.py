"""Work beside the stream: the nightly training of an anchor, and the evaluation of answers on past events.

It may import serving, flows, state and schemas: it scores and folds with the same code as server and flow. Begin with
`training/nightly.py`, then `evaluation/evaluate.py`.
"""
