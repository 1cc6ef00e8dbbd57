"""Other trainers' configurations as recipes: TRL, LLaMA-Factory, Axolotl."""
