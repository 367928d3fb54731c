"""Measure a GPU on which the harness never ran, in 8 minutes: what fails, what is right, how fast it is.

    python -m tools.first_gpu --out FOLDER

runs from a checkout. It needs torch, transformers, peft, pydantic, lazy-loader and threadpoolctl; with bitsandbytes it
measures qlora, and with nvidia-ml-py energy and the driver's memory. All models are shapes with random weights, so that
no figure is a score.

Stages run in the order of their worth, and are skipped where their time would not suffice. Figures go to
`figures.jsonl` as they come; a table is printed last. `--dry` runs everything in small, on a CPU where no GPU is.
"""
