"""One replica of a language or embedding model, served by our own engine.

Run as ``python -m ridgeline_service.serving.llm``. From the outside in: `app` (HTTP), `openai` and
`invocations` (what requests and answers look like), `generation` (text around token sequences),
`text` (tokenizer, templates, detokenisation, stop strings), `loading` and `replica` (how a model
comes up). It knows its model directory and its environment, and nothing of the control plane.
"""
