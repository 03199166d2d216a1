/**
 * Four texts as 16 pre-tokenizers cut them ("¦" marks a cut), made with Hugging Face tokenizers 0.23 (Oniguruma): for the GPT-2, Llama 3, Qwen 2, GPT-4o, Tekken
 * and Bailing kinds from the expressions in those models' own tokenizer files.
 */
export const PRE_TOKENIZER_TEXTS = [
  "I'll say 12345 times: WE'RE  McDonald's\r\n\n\tok...  ",
  'x=1;\u0085y\ufeffz\u3000\u4eba\u5c71 \u00bd\u2163',
  'e\u0301t\u00e9 \ud55c\uad6d\uc5b4 \u0e2b\u0e19\u0e49\u0e32 #foo/bar//\n',
  'a (b|c), d\u3002e',
] as const;

export const PRE_TOKENIZER_CUTS: Readonly<Record<string, readonly string[]>> = {
  'gpt-2': [
    "I¦'ll¦ say¦ 12345¦ times¦:¦ WE¦'¦RE¦ ¦ McDonald¦'s¦\r\n\n¦\t¦ok¦...¦  ",
    'x¦=¦1¦;¦\u0085¦y¦\ufeff¦z¦\u3000¦\u4eba\u5c71¦ \u00bd\u2163',
    'e¦\u0301¦t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49¦\u0e32¦ #¦foo¦/¦bar¦//¦\n',
    'a¦ (¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  starcoder: [
    "I¦'ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'¦RE¦ ¦ McDonald¦'s¦\r\n\n¦\t¦ok¦...¦  ",
    'x¦=¦1¦;¦\u0085¦y¦\ufeff¦z¦\u3000¦\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e¦\u0301¦t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49¦\u0e32¦ #¦foo¦/¦bar¦//¦\n',
    'a¦ (¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  'llama-bpe': [
    "I¦'ll¦ say¦ ¦123¦45¦ times¦:¦ WE¦'RE¦ ¦ McDonald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd\u2163',
    'e¦\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  qwen2: [
    "I¦'ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'RE¦ ¦ McDonald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e¦\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  qwen35: [
    "I¦'ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'RE¦ ¦ McDonald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  'gpt-4o': [
    "I'll¦ say¦ ¦123¦45¦ times¦:¦ WE'RE¦ ¦ Mc¦Donald's¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd\u2163',
    'e\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  tekken: [
    "I¦'ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'RE¦ ¦ Mc¦Donald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  'deepseek-llm': [
    "I¦'¦ll¦ say¦ ¦12345¦ times¦:¦ WE¦'¦RE¦ ¦ McDonald¦'¦s¦\r¦\n¦\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeff¦z¦\u3000¦\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e¦\u0301¦t¦\u00e9¦ ¦\ud55c\uad6d\uc5b4¦ ¦\u0e2b\u0e19\u0e49\u0e32¦ #¦foo¦/¦bar¦//¦\n',
    'a¦ (¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  'deepseek-coder': [
    "I¦'¦ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'¦RE¦ ¦ McDonald¦'¦s¦\r¦\n¦\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeff¦z¦\u3000\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e¦\u0301¦t\u00e9¦ ¦\ud55c\uad6d\uc5b4¦ ¦\u0e2b\u0e19¦\u0e49¦\u0e32¦ #¦foo¦/¦bar¦//¦\n',
    'a¦ (¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  'deepseek-v3': [
    "I¦'ll¦ say¦ ¦123¦45¦ times¦:¦ WE¦'RE¦ ¦ McDonald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000¦\u4eba\u5c71¦ ¦\u00bd\u2163',
    'e\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002¦e',
  ],
  falcon: [
    "I¦'¦ll¦ say¦ ¦123¦45¦ times¦:¦ WE¦'¦RE¦ ¦ McDonald¦'¦s¦\r\n\n¦\t¦ok¦...¦  ",
    'x¦=¦1¦;¦\u0085¦y¦\ufeff¦z¦\u3000¦\u4eba\u5c71¦ \u00bd\u2163',
    'e¦\u0301¦t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49¦\u0e32¦ ¦#¦foo¦/¦bar¦//¦\n',
    'a¦ ¦(¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  bloom: [
    "I'll¦ say¦ 12345¦ times:¦ WE'RE¦ ¦ McDonald's¦\r\n\n\t¦ok¦...  ",
    'x=1;¦\u0085¦y\ufeffz¦\u3000¦\u4eba\u5c71¦ \u00bd\u2163',
    'e\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19\u0e49\u0e32¦ #foo/bar//¦\n',
    'a¦ (¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  viking: [
    "I'll¦ say¦ ¦1¦2¦3¦4¦5¦ times:¦ WE'RE¦ ¦ McDonald's¦\r\n\n\t¦ok¦...  ",
    'x=¦1¦;¦\u0085¦y\ufeffz¦\u3000¦\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19\u0e49\u0e32¦ #foo/bar//¦\n',
    'a¦ (¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
  bailingmoe: [
    "I¦'ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'RE¦ ¦ McDonald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e¦\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49\u0e32¦ #¦foo¦/bar¦//\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  'seed-coder': [
    "I¦'ll¦ say¦ ¦1¦2¦3¦4¦5¦ times¦:¦ WE¦'RE¦ ¦ McDonald¦'s¦\r\n\n¦\tok¦...¦  ",
    'x¦=¦1¦;¦\u0085y¦\ufeffz¦\u3000\u4eba\u5c71¦ ¦\u00bd¦\u2163',
    'e¦\u0301t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49\u0e32¦ #¦foo¦/bar¦//¦\n',
    'a¦ (¦b¦|c¦),¦ d¦\u3002e',
  ],
  default: [
    "I¦'¦ll¦ say¦ ¦123¦45¦ times¦:¦ WE¦'¦RE¦ ¦ McDonald¦'¦s¦\r\n\n¦\t¦ok¦...¦  ",
    'x¦=¦1¦;¦\u0085¦y¦\ufeff¦z¦\u3000¦\u4eba\u5c71¦ ¦\u00bd\u2163',
    'e¦\u0301¦t\u00e9¦ \ud55c\uad6d\uc5b4¦ \u0e2b\u0e19¦\u0e49¦\u0e32¦ ¦#¦foo¦/¦bar¦//¦\n',
    'a¦ ¦(¦b¦|¦c¦),¦ d¦\u3002¦e',
  ],
};
