"""Jobs as OpenAI's API has them: what may be asked, how it becomes a recipe, and from state to state."""
