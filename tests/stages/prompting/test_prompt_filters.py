"""New prompts: ROUGE-L against the library, the index against all pairs, each filter by its cause."""

from __future__ import annotations

import random
import unicodedata
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from srlm_contract.spec.loop import PromptFiltersSpec
from srlm_stages.prompting.filters import PromptFilter, cleaned, in_language, keyword_pattern
from srlm_stages.prompting.similarity import SimilarityIndex, rouge_l, rouge_tokens
from srlm_stages.seed.languages import scripts_of, word_count

WORDS = ["write", "a", "story", "about", "the", "cat", "and", "dog", "how", "to", "cook", "rice"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@given(texts, texts)
def test_rouge_l_equals_the_library(a: str, b: str) -> None:
    expected = RougeScorer(["rougeL"], use_stemmer=False).score(a, b)["rougeL"].fmeasure
    assert rouge_l(rouge_tokens(a), rouge_tokens(b)) == pytest.approx(expected)


def test_tokens_equal_the_library_on_real_punctuation() -> None:
    a, b = "What's 3.5 x 2? Don't guess!", "what is 3.5x2 - don't you know"
    expected = RougeScorer(["rougeL"], use_stemmer=False).score(a, b)["rougeL"].fmeasure
    assert rouge_l(rouge_tokens(a), rouge_tokens(b)) == pytest.approx(expected)


@given(st.lists(texts, max_size=15), texts, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(seen: list[str], text: str, threshold: float) -> None:
    index = SimilarityIndex(threshold)
    for other in seen:
        index.add(other)
    tokens = rouge_tokens(text)
    expected = any(rouge_l(tokens, rouge_tokens(other)) >= threshold - 1e-9 for other in seen)
    assert index.similar(text) == expected


def test_a_hundred_thousand_prompts_need_hardly_any_comparison() -> None:
    """Work is counted, not time: all pairs would be 100,000 comparisons for each new prompt."""
    draw = random.Random(0)
    small = ["write", "a", "the", "of", "how", "to", "what", "is", "in", "for", "and", "explain", "give", "me"]
    names = [f"name{i}" for i in range(20_000)]
    weights = list(accumulate(1 / (i + 1) for i in range(len(names))))  # words of texts: the n-th is n times rarer

    def prompt() -> str:
        drawn = draw.choices(names, cum_weights=weights, k=draw.randint(6, 20))
        return " ".join(draw.choice(small) if draw.random() < 0.4 else name for name in drawn)

    index = SimilarityIndex(0.7)
    seen = [prompt() for _ in range(100_000)]
    for text in seen:
        index.add(text)
    for text in (prompt() for _ in range(200)):
        index.similar(text)
    assert index.compared < 10 * 200
    for text in draw.sample(seen, 20):
        words = text.split()
        words[0] = "another"
        assert index.similar(" ".join(words)) == (rouge_l(words, text.split()) >= 0.7)


def prompt_filter(**fields: object) -> PromptFilter:
    accept = PromptFilter(PromptFiltersSpec.model_validate(fields), "en")
    accept.remember("Write a short story about a brave cat who learns to swim")
    return accept


@pytest.mark.parametrize(
    ("prompt", "cause"),
    [
        ("", "droppedEmpty"),
        ("12 + 30 = ?", "droppedEmpty"),
        ("Too short", "droppedLength"),
        ("word " * 151, "droppedLength"),
        ("Draw an image of a house", "droppedKeyword"),
        ("Describe these two Pictures to me", "droppedKeyword"),
        ("Напиши рассказ о храброй кошке", "droppedLanguage"),
        ("Schreibe mir bitte eine kurze Geschichte über Katzen", "droppedLanguage"),
        ("write a short story about a brave cat, who learns to swim!", "droppedDuplicate"),
        ("Write a short story about a brave dog who learns to swim", "droppedSimilar"),
        ("How do I keep bread fresh for a week?", None),
        ("Explain the photographic process", None),
    ],
)
def test_each_cause(prompt: str, cause: str | None) -> None:
    assert prompt_filter().refusal(prompt) == cause


def test_the_bound_itself_is_still_accepted() -> None:
    accept = PromptFilter(PromptFiltersSpec(max_rouge_l=0.5, min_words=1), "xx")
    accept.remember("one two three four")
    assert accept.refusal("one two five six") is None
    assert accept.refusal("one two three six") == "droppedSimilar"


def test_a_bound_of_one_refuses_only_equal_prompts() -> None:
    accept = prompt_filter(maxRougeL=1)
    assert accept.refusal("Write a short story about a brave dog who learns to swim") is None


def test_what_was_accepted_is_remembered_only_when_told() -> None:
    accept = prompt_filter()
    assert accept.refusal("How do I keep bread fresh?") is None
    accept.remember("How do I keep bread fresh?")
    assert accept.refusal("How do I keep bread fresh?") == "droppedDuplicate"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (" 9. Name a fruit. ", "Name a fruit."),
        ('"Name a fruit."', "Name a fruit."),
        ("- Name a fruit.", "Name a fruit."),
        ('Say "yes" and "no"', 'Say "yes" and "no"'),
        ('"Yes" or "no"', '"Yes" or "no"'),
        ("3 fruits, please", "3 fruits, please"),
        ("１、「写一首诗。」", "写一首诗。"),
        ("（2）写一首诗。", "写一首诗。"),
        ("«Назови фрукт.»", "Назови фрукт."),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert cleaned(raw) == clean


#: The same task in languages of many scripts, and the task with one word more.
SAID = {
    "zh": ("请解释一下为什么天空是蓝色的", "请解释一下为什么天空是蓝色的呢"),
    "zh-Hant-TW": ("請解釋為什麼天空是藍色的", "請解釋為什麼天空是藍色的呢"),
    "ja": ("空が青い理由を説明してください", "空が青い理由を説明してくださいね"),
    "ko": ("하늘이 왜 파란지 자세히 설명해 주세요", "하늘이 왜 파란지 자세히 설명해 주세요 제발"),
    "th": ("ช่วยอธิบายว่าทำไมท้องฟ้าจึงเป็นสีฟ้า", "ช่วยอธิบายว่าทำไมท้องฟ้าจึงเป็นสีฟ้าครับ"),
    "lo": ("ອະທິບາຍວ່າເປັນຫຍັງທ້ອງຟ້າຈຶ່ງເປັນສີຟ້າ", "ອະທິບາຍວ່າເປັນຫຍັງທ້ອງຟ້າຈຶ່ງເປັນສີຟ້າແດ່"),
    "km": ("ពន្យល់ពីមូលហេតុដែលមេឃមានពណ៌ខៀវ", "ពន្យល់ពីមូលហេតុដែលមេឃមានពណ៌ខៀវផង"),
    "my": ("ကောင်းကင်က ဘာကြောင့် အပြာရောင်ဖြစ်သလဲ", "ကောင်းကင်က ဘာကြောင့် အပြာရောင်ဖြစ်သလဲ ရှင်"),
    "hi": ("समझाओ कि आसमान नीला क्यों होता है", "समझाओ कि आसमान नीला क्यों होता है भाई"),
    "ar": ("اشرح لي لماذا لون السماء أزرق", "اشرح لي لماذا لون السماء أزرق الآن"),
    "ru": ("Объясни, почему небо голубое днём", "Объясни мне, почему небо голубое днём"),
    "el": ("Εξήγησε γιατί ο ουρανός είναι γαλάζιος", "Εξήγησε μου γιατί ο ουρανός είναι γαλάζιος"),
    "pt-BR": ("Explique por que o céu é azul", "Explique por que o céu é tão azul"),
    "am": ("ሰማዩ ለምን ሰማያዊ እንደሆነ አስረዳ", "ሰማዩ ለምን ሰማያዊ እንደሆነ አሁን አስረዳ"),
    "ta": ("வானம் ஏன் நீலமாக இருக்கிறது என விளக்கு", "வானம் ஏன் நீலமாக இருக்கிறது என நன்கு விளக்கு"),
}


@pytest.mark.parametrize("language", SAID)
def test_each_language_passes_its_filters_and_its_near_copies_do_not(language: str) -> None:
    text, copy = SAID[language]
    accept = PromptFilter(PromptFiltersSpec(), language)
    assert accept.refusal(text + "?") is None
    accept.remember(text + "?")
    assert accept.refusal(text) == "droppedDuplicate"
    assert accept.refusal(copy) == "droppedSimilar"
    assert accept.refusal("Write a short story about the sea") == ("droppedLanguage" if language != "pt-BR" else None)


def test_no_language_is_taken_for_one_of_another_script() -> None:
    scripts = {language: scripts_of(language) for language in SAID}
    for language, (text, _) in SAID.items():
        for other in SAID:
            if set(scripts[language]).isdisjoint(scripts[other]):
                assert not in_language(text, other), (language, other)
    assert not in_language(SAID["zh"][0], "ja")
    assert not in_language(SAID["ja"][0], "zh")


@pytest.mark.parametrize(
    ("text", "language", "fits"),
    [
        ("请用Python写一个快速排序函数", "zh", True),
        ("Напиши на Python функцию сортировки", "ru", True),
        ("Translate 你好 into English please", "zh", False),
        ("Translate this sentence about 你 now", "en", True),
        ("Napiši kratku priču", "sr", True),
        ("Напиши кратку причу", "sr", True),
        ("Napiši kratku priču", "sr-Cyrl", False),
        ("Напиши кратку причу", "sr-Latn", False),
        ("ＷＲＩＴＥ about the sea", "en", True),
        ("東京大学", "ja", True),
        ("12345", "zh", False),
    ],
)
def test_scripts(text: str, language: str, fits: bool) -> None:
    assert in_language(text, language) == fits


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("How do I boil an egg?", 6), ("3 x 2 = ?", 5), ("什么是爱？", 3), ("写诗", 2), ("", 0),
        ("请用 Python 3 写诗", 5), ("ทำไมท้องฟ้าจึงเป็นสีฟ้า", 6), ("हिन्दी में लिखो", 3), ("天" * 300, 200),
        ("ཁྱེད་རང་གི་མིང་ལ་ག་རེ་ཟེར།", 8), ("ሰማይ፡ለምን፡ሰማያዊ፡ነው", 4),
    ],
)  # fmt: skip
def test_words_are_counted_where_no_blanks_stand_between_them(text: str, words: int) -> None:
    assert word_count(text) == words


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("图片", "请画一张图片给我", True), ("image", "请画一个image给我", True), ("image", "imagery", False),
        ("image", "Two Images of it", True), ("그림", "고양이 그림을 그려 줘", True), ("그림", "새그림자", False),
        ("c++", "Write C++ now", True), ("ภาพ", "ช่วยวาดภาพแมว", True), ("image", "ｉｍａｇｅ", True),
        ("a.c", "abc", False), ("bildnis", "Bildnis einer Dame", True), ("चित्र", "एक चित्र बनाओ", True),
    ],
)  # fmt: skip
def test_banned_keywords(keyword: str, text: str, found: bool) -> None:
    assert bool(keyword_pattern([keyword]).search(unicodedata.normalize("NFKC", text).casefold())) == found


@settings(max_examples=50)
@given(st.text(max_size=30), st.text(max_size=30))
def test_similarity_of_any_texts_is_symmetric_and_one_for_equal_texts(a: str, b: str) -> None:
    one, two = rouge_tokens(a), rouge_tokens(b)
    assert rouge_l(one, two) == rouge_l(two, one)
    assert rouge_l(one, one) == (1 if one else 0)
    assert all(token == token.casefold() for token in one)


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert rouge_tokens("Café Ｃａｆé") == rouge_tokens("Cafe\u0301 café")
