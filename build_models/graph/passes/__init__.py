"""The optimiser's transforms, one a file.

A pass **changes the model it is given** and returns it with the number of its rewrites; `build_models.graph.optimise`
copies once, before the first. What holds for all:

- they rewrite the main graph. Graphs inside a node (If, Loop, Scan) are left as they are, what those read from outside
  counts as read, and an If with a constant condition is written out, so that its branch is seen.
- graph inputs and outputs keep their names. An initialiser that is also a graph input may be fed and is no constant.
- a constant that is changed becomes a new one: other readers of the old one go on as before.
- shapes are inferred anew, never taken from the file: a file may be wrong about what it computes, not about its inputs.
- operators of other domains are touched by none, random ones are neither folded nor merged.

They are ours although onnx-ir and onnxscript have such passes: docs/adr/0004-graph-passes-of-our-own.md says why.
"""
