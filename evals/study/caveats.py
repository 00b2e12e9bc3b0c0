"""What the page of a study says beside its numbers."""

# What the result means.
MEANING = (
  "It shows whether exercises in the form of the test teach models of this size "
  "to do what docstrings say, and by the controls whether that is the pairing of "
  "docstring and solution, diversity, correctness, or copying.",
  "It does not show that textbook-quality data beat scaling laws: one or two "
  "sizes, short trainings, and exercises and problems from one grammar. Most "
  "of any effect is that training and test speak the same language. The tier of "
  "hand-written problems asks for more than the grammar's tasks, so "
  "a low score there does not say which of language and task was too far.",
  "Intervals are over problems, and over seeds where there are several. Learning "
  "rates, sizes and exercises drawn anew would differ too, and are not in them.",
  "Batch, learning rate, beta2, weight decay and the split of the steps were chosen by "
  "trials of single trainings, most of them of exercises after textbooks, scored on "
  "the nearest tiers (docs/log): that may favour this arm over those after other texts "
  "or none.",
  "Textbooks come from the same grammar as the exercises, which favours them "
  "over code; GPT-3.5's textbooks and HumanEval may or may not be that close.",
)
# What the paper leaves open, and what was chosen here.
CHOICES = (
  "Finetuning starts a new schedule at the full learning rate (the paper: a tenth), "
  "with the weight decay of pretraining, 0.1 (the paper: 0.01), and no dropout.",
  "The vocabulary is learnt from a hundred modules, the textbooks and the exercises, "
  "so at equal tokens an arm on raw code reads fewer bytes.",
  "Exercises start from a checkpoint of the text while its learning rate is still "
  "high, as the paper finetunes from step 24,000 of 36,000.",
  "The loss counts every token of an exercise, docstring too. The paper does not say.",
  "The embeddings of the filter are the mean of the last hidden states of the arm on "
  "raw code, at that checkpoint. The paper names CodeGen, but no layer or pooling.",
  "The judge of educational value is a list of features, not GPT-4; the teacher of "
  "textbooks and exercises is a grammar, not GPT-3.5. No language model wrote or "
  "judged anything here.",
  "One greedy completion per problem, put as published, cut at the first stop string.",
  "Similar to a problem is what `curate decontaminate` convicts at that tau: AST "
  "match, or a weaker match beside shared words or, in the table of pruning, close "
  "embeddings (the last hidden state of the arm on raw code). The paper "
  "embeds with CodeGen.",
  "Copies of a problem (its text, its solution's lines or words) are kept out of all "
  "arms but the leaked one.",
)
