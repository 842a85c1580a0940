PIPELINES = ("StableDiffusionPipeline",)
"""The classes that a model's index names; Stable Diffusion 2 has the same one, in another size."""
