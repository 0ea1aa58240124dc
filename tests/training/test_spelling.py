import pytest

torch = pytest.importorskip("torch", reason="training needs the dependency group `training`")

from training.spelling import SpelledEmbedding, parts, spellings  # noqa: E402


def test_a_spelling_has_letters_places_pairs_and_capitals():
    found = parts(" Ab")
    assert {("letter", "a"), ("front", "b", 1), ("back", "b", 0), ("capital", 0)} <= set(found)
    assert set(parts("ab")) < set(found)  # a capital adds to a word, and takes nothing away
    assert len([p for p in found if p[0] == "pair"]) == 1


def test_tokens_of_the_same_letters_share_rows(tools):
    table = spellings(tools.tokenizer)
    assert table.shape[0] == tools.tokenizer.get_vocab_size()
    plain, spaced = (tools.tokenizer.token_to_id(token) for token in ("e", "Ġe"))
    assert plain is not None
    assert spaced is not None
    assert torch.equal(table[plain], table[spaced])
    assert (table.sum(1) > 0).float().mean() > 0.95  # space alone has no letters


def test_folding_keeps_every_row(tools):
    torch.manual_seed(0)
    table = spellings(tools.tokenizer)
    spelled = SpelledEmbedding(len(table), 8, table)
    ids = torch.tensor([[5, 300, 5], [7, 299, 301]])
    assert torch.allclose(spelled.fold()(ids), spelled(ids), atol=1e-6)


def test_one_word_teaches_another(tools):
    """A step on one token moves the tokens that are spelled like it, and no others."""
    torch.manual_seed(0)
    table = spellings(tools.tokenizer)
    spelled = SpelledEmbedding(len(table), 8, table)
    before = spelled.fold().weight.detach()
    plain, spaced, other = (tools.tokenizer.token_to_id(token) for token in ("e", "Ġe", "Q"))
    spelled(torch.tensor([plain])).sum().backward()
    torch.optim.SGD(spelled.parameters(), lr=1.0).step()
    moved = (spelled.fold().weight.detach() - before).norm(dim=1)
    assert moved[spaced] > 0.1
    assert moved[other] == 0
